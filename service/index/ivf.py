"""An inverted-file index (IVF): each row is in the list of its nearest centroid, and a search scans the nearest lists.

Shapes: Q queries, P dimensions.
"""

import math
from collections.abc import Callable
from typing import Literal

import faiss
import numpy as np
import numpy.typing as npt

from service.core.types import Mask, Rows, Vectors
from service.index.columns import GrowableArray
from service.index.exact import set_thread_count
from service.index.gpu import GpuReplica

_MIN_POINTS = 16  # sample vectors per centroid; more lists improve recall more than better centroids


class Ivf:
    """Projected vectors with 8 bits per dimension (`ivf_sq8`), or product-quantised at half of that (`ivf_pq`).

    Its search parameter is nprobe, the number of scanned lists.
    """

    def __init__(self, trained: bytes) -> None:
        """An empty index. `trained` comes from `train`."""
        self._trained = trained
        self._faiss = faiss.deserialize_index(np.frombuffer(trained, np.uint8))
        self._lists = GrowableArray(np.int32, fill=-1)  # by row: its list
        self._replica: GpuReplica | None = None

    @classmethod
    def train(cls, kind: Literal["ivf_sq8", "ivf_pq"], sample: Vectors, rows: int) -> "Ivf":
        """An empty index for `rows` vectors. Learns centroids and codes from an (n, P) float32 sample."""
        dims = sample.shape[1]
        lists = 4 << round(math.log2(math.sqrt(rows)))
        lists = min(lists, 1 << int(math.log2(max(1, len(sample) / _MIN_POINTS))))
        codes = "SQ8" if kind == "ivf_sq8" else f"PQ{dims // 2 if dims % 2 == 0 else dims}x8"
        index = faiss.index_factory(dims, f"IVF{lists},{codes}", faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1  # otherwise faiss prints a warning
        if kind == "ivf_pq":
            index.pq.cp.min_points_per_centroid = 1
            index.do_polysemous_training = False  # takes most of the time; no search here uses it
        index.train(sample)
        return cls(faiss.serialize_index(index).tobytes())

    @property
    def search_params(self) -> list[int]:
        """Values of nprobe from 1 to all lists, in steps of 20 %."""
        lists = self._faiss.nlist
        return sorted({min(lists, math.ceil(1.2**step)) for step in range(1 + math.ceil(math.log(lists, 1.2)))})

    def holds(self, count: int) -> Mask:
        """(count,) booleans: whether each of the first rows is in a list."""
        held: Mask = self._lists.padded(count) >= 0
        return held

    def prepare(self, rows: Rows, vectors: Vectors) -> Callable[[], None]:
        """Find the lists of (n, P) float32 vectors. The returned call adds them as (n,) rows."""
        vectors, rows = np.ascontiguousarray(vectors, np.float32), np.ascontiguousarray(rows, np.int64)
        _, nearest = self._faiss.quantizer.search(vectors, 1)
        lists = nearest[:, 0].copy()

        def append() -> None:
            self._faiss.add_core(len(vectors), faiss.swig_ptr(vectors), faiss.swig_ptr(rows), faiss.swig_ptr(lists))
            self._lists.put(rows, lists)
            self._replica = None

        return append

    def search(self, queries: Vectors, count: int, nprobe: int) -> Rows:
        """(Q, count) candidate rows for (Q, P) float32 queries; -1 is no row."""
        rows: Rows
        if (replica := self._replica) is not None and replica.serves(count):
            _, rows = replica.search(queries, count, nprobe)
            return rows
        set_thread_count(len(queries))
        params = faiss.SearchParametersIVF(nprobe=nprobe)
        _, rows = self._faiss.search(queries, count, params=params)
        return rows

    def wipe(self, rows: Rows) -> None:
        """Remove (n,) rows from their lists, and overwrite their codes. Other rows keep their numbers."""
        self._replica = None
        numbers = self._lists.padded(int(rows.max(initial=-1)) + 1)[rows]
        lists, size = self._faiss.invlists, self._faiss.code_size
        for number in np.unique(numbers[numbers >= 0]).tolist():
            length = lists.list_size(number)
            ids = faiss.rev_swig_ptr(lists.get_ids(number), length)
            codes = faiss.rev_swig_ptr(lists.get_codes(number), length * size).reshape(length, size)
            kept = ~np.isin(ids, rows)
            count = int(kept.sum())
            ids[:count], codes[:count] = ids[kept], codes[kept]
            codes[count:] = 0
            lists.resize(number, count)

    def copy_to_gpu(self) -> bool:
        """Make a GPU replica unless there is one. Returns whether it did. Raises RuntimeError without memory."""
        if self._replica is not None:
            return False
        self._replica = GpuReplica(self._faiss)
        return True

    def empty(self) -> "Ivf":
        """A copy of the training, without rows."""
        return Ivf(self._trained)

    def state(self) -> dict[str, npt.NDArray[np.uint8]]:
        """The training. It refers to no row."""
        return {"trained": np.frombuffer(self._trained, np.uint8)}
