"""A graph index (HNSW, Malkov and Yashunin 2018): fast to search, slow to build.

Shapes: Q queries, P dimensions.
"""

from collections.abc import Callable

import faiss
import numpy as np
import numpy.typing as npt

from service.core.types import Mask, Rows, Vectors
from service.index.columns import GrowableArray
from service.index.exact import set_thread_count

_M = 32  # neighbours of a node
_EF_CONSTRUCTION = 80


class Hnsw:
    """A graph of projected vectors with 8 bits per dimension. Its search parameter is efSearch."""

    search_params = (32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)

    def __init__(
        self, trained: bytes, graph: bytes | None = None, rows: Rows | None = None, vectors: Vectors | None = None
    ) -> None:
        """An empty index, or one with the `graph` of an earlier `state`.

        `trained` comes from `train`. `rows` (n,) and `vectors` (n, P) float32 belong to the nodes of the graph.
        """
        self._trained = trained
        self._rows = GrowableArray(np.int64)  # by node: its row
        self._nodes = GrowableArray(np.int64, fill=-1)  # by row: its node
        index = faiss.deserialize_index(np.frombuffer(trained, np.uint8))
        self._codes = faiss.downcast_index(index.storage)
        if graph is not None:
            empty, index = index, faiss.deserialize_index(np.frombuffer(graph, np.uint8), faiss.IO_FLAG_SKIP_STORAGE)
            empty.own_fields = False  # the codes move to the new index
            self._codes.add(np.ascontiguousarray(vectors, np.float32))
            index.storage, index.own_fields = self._codes, True
            self._codes.this.disown()
            assert rows is not None
            self._append(rows)
        index.hnsw.efConstruction = _EF_CONSTRUCTION
        self._faiss = index

    @classmethod
    def train(cls, sample: Vectors) -> "Hnsw":
        """An empty index. Learns the range of each dimension from (n, P) float32 vectors."""
        codes = faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexHNSWSQ(sample.shape[1], codes, _M, faiss.METRIC_INNER_PRODUCT)
        index.train(sample)
        return cls(faiss.serialize_index(index).tobytes())

    @property
    def rows(self) -> Rows:
        """(n,) the row of each node."""
        return self._rows.values

    def holds(self, count: int) -> Mask:
        """(count,) booleans: whether each of the first rows is a node."""
        held: Mask = self._nodes.padded(count) >= 0
        return held

    def prepare(self, rows: Rows, vectors: Vectors) -> Callable[[], None]:
        """The returned call adds (n, P) float32 vectors as (n,) rows and links them."""
        vectors = np.ascontiguousarray(vectors, np.float32)

        def append() -> None:
            self._faiss.add(vectors)
            self._append(rows)

        return append

    def search(self, queries: Vectors, count: int, ef_search: int) -> Rows:
        """(Q, n) candidate rows for (Q, P) float32 queries, n <= `count`; -1 is no row."""
        set_thread_count(len(queries))
        count = min(count, len(self._rows))
        params = faiss.SearchParametersHNSW(efSearch=max(ef_search, count))
        _, nodes = self._faiss.search(queries, count, params=params)
        rows: Rows = np.where(nodes < 0, -1, self._rows.values[nodes])
        return rows

    def wipe(self, rows: Rows) -> None:
        """Overwrite the codes of (n,) rows with that of the zero vector, which is near no query. Their nodes stay."""
        nodes = self._nodes.padded(int(rows.max(initial=-1)) + 1)[rows]
        zero = self._codes.sa_encode(np.zeros((1, self._codes.d), np.float32))
        count, size = self._codes.ntotal, self._codes.code_size
        faiss.rev_swig_ptr(self._codes.codes.data(), count * size).reshape(count, size)[nodes[nodes >= 0]] = zero

    def empty(self) -> "Hnsw":
        """A copy of the training, without rows."""
        return Hnsw(self._trained)

    def state(self) -> dict[str, npt.NDArray[np.uint8]]:
        """The training and the graph, without the codes of its nodes."""
        graph = faiss.serialize_index(self._faiss, faiss.IO_FLAG_SKIP_STORAGE)
        return {"trained": np.frombuffer(self._trained, np.uint8), "graph": graph}

    def _append(self, rows: Rows) -> None:
        self._nodes.put(rows, np.arange(len(self._rows), len(self._rows) + len(rows)))
        self._rows.append(rows)
