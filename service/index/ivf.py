"""Inverted lists: a row lies in the list of the centroid that is nearest, and a search looks into the nearest lists."""

import math
from collections.abc import Callable
from typing import Literal

import faiss
import numpy as np
import numpy.typing as npt

from service.core.types import Mask, Rows, Vectors
from service.index.columns import GrowableArray
from service.index.exact import use_cores
from service.index.gpu import GpuReplica

_POINTS = 16  # of the sample for each centroid; more lists help more than better centroids


class Ivf:
    """Projected vectors in 8 bits a dimension (`ivf_sq8`) or product-quantised at half of that (`ivf_pq`).

    The effort of a search is the number of lists that it looks into.
    """

    def __init__(self, trained: bytes) -> None:
        """An empty index; `trained` is what `train` made."""
        self._trained = trained
        self._faiss = faiss.deserialize_index(np.frombuffer(trained, np.uint8))
        self._lists = GrowableArray(np.int32, empty=-1)  # of each row
        self._copy: GpuReplica | None = None

    @classmethod
    def train(cls, kind: Literal["ivf_sq8", "ivf_pq"], sample: Vectors, rows: int) -> "Ivf":
        """Learn centroids and codes for `rows` vectors from a (n, P) sample of them."""
        dims = sample.shape[1]
        lists = 4 << round(math.log2(math.sqrt(rows)))
        lists = min(lists, 1 << int(math.log2(max(1, len(sample) / _POINTS))))
        codes = "SQ8" if kind == "ivf_sq8" else f"PQ{dims // 2 if dims % 2 == 0 else dims}x8"
        index = faiss.index_factory(dims, f"IVF{lists},{codes}", faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1  # else faiss prints that it would like more
        if kind == "ivf_pq":
            index.pq.cp.min_points_per_centroid = 1
            index.do_polysemous_training = False  # takes most of the time, for searches of a kind that none here is
        index.train(sample)
        return cls(faiss.serialize_index(index).tobytes())

    @property
    def efforts(self) -> list[int]:
        """From one list to all, in steps of a fifth."""
        lists = self._faiss.nlist
        return sorted({min(lists, math.ceil(1.2**step)) for step in range(1 + math.ceil(math.log(lists, 1.2)))})

    def holds(self, count: int) -> Mask:
        """(count,) booleans: which of the first `count` rows are in a list."""
        held: Mask = self._lists.padded(count) >= 0
        return held

    def prepare(self, rows: Rows, vectors: Vectors) -> Callable[[], None]:
        """Find the lists of (n, P) vectors; what it returns adds them as (n,) rows."""
        vectors, rows = np.ascontiguousarray(vectors, np.float32), np.ascontiguousarray(rows, np.int64)
        _, nearest = self._faiss.quantizer.search(vectors, 1)
        lists = nearest[:, 0].copy()

        def append() -> None:
            self._faiss.add_core(len(vectors), faiss.swig_ptr(vectors), faiss.swig_ptr(rows), faiss.swig_ptr(lists))
            self._lists.put(rows, lists)
            self._copy = None

        return append

    def search(self, queries: Vectors, count: int, effort: int) -> Rows:
        """(Q, count) rows that are likely the best, for each of (Q, P) queries; -1 is no row."""
        rows: Rows
        if (copy := self._copy) is not None and copy.serves(count):
            _, rows = copy.search(queries, count, effort)
            return rows
        use_cores(len(queries))
        params = faiss.SearchParametersIVF(nprobe=effort)
        _, rows = self._faiss.search(queries, count, params=params)
        return rows

    def wipe(self, rows: Rows) -> None:
        """Take these rows out of their lists, and overwrite what was there; other rows keep their numbers."""
        self._copy = None
        numbers = self._lists.padded(int(rows.max(initial=-1)) + 1)[rows]
        lists, size = self._faiss.invlists, self._faiss.code_size
        for number in np.unique(numbers[numbers >= 0]).tolist():
            length = lists.list_size(number)
            ids = faiss.rev_swig_ptr(lists.get_ids(number), length)
            codes = faiss.rev_swig_ptr(lists.get_codes(number), length * size).reshape(length, size)
            left = ~np.isin(ids, rows)
            count = int(left.sum())
            ids[:count], codes[:count] = ids[left], codes[left]
            codes[count:] = 0
            lists.resize(number, count)

    def copy_to_gpu(self) -> bool:
        """Whether there was none of what is here now, and one was made. Raises RuntimeError without room."""
        if self._copy is not None:
            return False
        self._copy = GpuReplica(self._faiss)
        return True

    def empty(self) -> "Ivf":
        """Another without rows, as trained."""
        return Ivf(self._trained)

    def state(self) -> dict[str, npt.NDArray[np.uint8]]:
        """What is costly to find again. It tells of no single row."""
        return {"trained": np.frombuffer(self._trained, np.uint8)}
