"""A graph of neighbours (HNSW): a search walks it towards the query. Quick to search and slow to build."""

from collections.abc import Callable

import faiss
import numpy as np
import numpy.typing as npt

from service.core.types import Mask, Rows, Vectors
from service.index.columns import GrowableArray
from service.index.exact import use_cores

_NEIGHBOURS = 32
_CONSTRUCTION = 80  # neighbours looked at when a row is added


class Hnsw:
    """Projected vectors in 8 bits a dimension, linked. The effort of a search is the width of its walk."""

    efforts = (32, 48, 64, 96, 128, 192, 256, 384, 512, 1024)

    def __init__(
        self, trained: bytes, graph: bytes | None = None, rows: Rows | None = None, vectors: Vectors | None = None
    ) -> None:
        """Empty; or the graph of an earlier one, and the (n,) rows and (n, P) vectors of its nodes.

        `trained` is what `train` made.
        """
        self._trained = trained
        self._rows = GrowableArray(np.int64)  # of each node
        self._nodes = GrowableArray(np.int64, empty=-1)  # of each row
        index = faiss.deserialize_index(np.frombuffer(trained, np.uint8))
        self._codes = faiss.downcast_index(index.storage)
        if graph is not None:
            empty, index = index, faiss.deserialize_index(np.frombuffer(graph, np.uint8), faiss.IO_FLAG_SKIP_STORAGE)
            empty.own_fields = False  # the codes move from the one index to the other
            self._codes.add(np.ascontiguousarray(vectors, np.float32))
            index.storage, index.own_fields = self._codes, True
            self._codes.this.disown()
            assert rows is not None
            self._append(rows)
        index.hnsw.efConstruction = _CONSTRUCTION
        self._faiss = index

    @classmethod
    def train(cls, sample: Vectors) -> "Hnsw":
        """Learn the range of each dimension from (n, P) vectors."""
        codes = faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexHNSWSQ(sample.shape[1], codes, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        index.train(sample)
        return cls(faiss.serialize_index(index).tobytes())

    @property
    def rows(self) -> Rows:
        """The row of each node, in the order of the nodes."""
        return self._rows.values

    def holds(self, count: int) -> Mask:
        """(count,) booleans: which of the first `count` rows are nodes."""
        held: Mask = self._nodes.padded(count) >= 0
        return held

    def prepare(self, rows: Rows, vectors: Vectors) -> Callable[[], None]:
        """What it returns adds (n, P) vectors as (n,) rows and links them."""
        vectors = np.ascontiguousarray(vectors, np.float32)

        def append() -> None:
            self._faiss.add(vectors)
            self._append(rows)

        return append

    def search(self, queries: Vectors, count: int, effort: int) -> Rows:
        """(Q, n) rows that are likely the best, for each of (Q, P) queries, n at most `count`; -1 is no row."""
        use_cores(len(queries))
        count = min(count, len(self._rows))
        params = faiss.SearchParametersHNSW(efSearch=max(effort, count))
        _, nodes = self._faiss.search(queries, count, params=params)
        rows: Rows = np.where(nodes < 0, -1, self._rows.values[nodes])
        return rows

    def wipe(self, rows: Rows) -> None:
        """Overwrite what is held of these rows with nothing, near which no query is; they stay as nodes."""
        nodes = self._nodes.padded(int(rows.max(initial=-1)) + 1)[rows]
        nothing = self._codes.sa_encode(np.zeros((1, self._codes.d), np.float32))
        count, size = self._codes.ntotal, self._codes.code_size
        faiss.rev_swig_ptr(self._codes.codes.data(), count * size).reshape(count, size)[nodes[nodes >= 0]] = nothing

    def empty(self) -> "Hnsw":
        """Another without rows, as trained."""
        return Hnsw(self._trained)

    def state(self) -> dict[str, npt.NDArray[np.uint8]]:
        """What is costly to find again: the graph without what its nodes hold."""
        graph = faiss.serialize_index(self._faiss, faiss.IO_FLAG_SKIP_STORAGE)
        return {"trained": np.frombuffer(self._trained, np.uint8), "graph": graph}

    def _append(self, rows: Rows) -> None:
        self._nodes.put(rows, np.arange(len(self._rows), len(self._rows) + len(rows)))
        self._rows.append(rows)
