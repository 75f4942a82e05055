"""Every vector, and exact search over them."""

import os
import threading

import faiss
import numpy as np

from service.core.types import Mask, Rows, Vectors
from service.index.gpu import GpuReplica

_BLAS_FROM_QUERIES = 4
_COPIED = 2**24  # numbers at a time
_CORES = os.cpu_count() or 1
_thread = threading.local()


class FlatIndex:
    """Exact inner product over every row."""

    def __init__(self, dim: int) -> None:
        self._faiss = faiss.IndexFlatIP(dim)
        self._copy: GpuReplica | None = None
        # faiss compares this process-wide setting with queries x dimensions; its default keeps a whole batch from BLAS.
        faiss.cvar.distance_compute_blas_threshold = _BLAS_FROM_QUERIES * dim

    def __len__(self) -> int:
        return int(self._faiss.ntotal)

    @property
    def dim(self) -> int:
        """Numbers a vector has."""
        return int(self._faiss.d)

    def reserve(self, rows: int) -> None:
        """Make room for so many rows at once; one by one the room is doubled, and all that is in it copied."""
        held = self._faiss.codes.size()
        self._faiss.codes.resize(max(held, 4 * self.dim * rows))
        self._faiss.codes.resize(held)  # which keeps the room

    def add(self, vectors: Vectors) -> None:
        """Append (n, D) rows."""
        self._faiss.add(np.ascontiguousarray(vectors, np.float32))

    def vectors(self, rows: Rows) -> Vectors:
        """The (n, D) vectors of these rows."""
        found: Vectors = self._faiss.reconstruct_batch(rows)
        return found

    def wipe(self, rows: Rows) -> None:
        """Overwrite the vectors of these rows; the rows stay."""
        self._copy = None
        vectors = faiss.rev_swig_ptr(self._faiss.get_xb(), len(self) * self.dim).reshape(len(self), self.dim)
        vectors[rows] = 0.0

    def search(self, queries: Vectors, count: int, allowed: Mask | None, first: int = 0) -> tuple[Vectors, Rows]:
        """The best `count` rows for each of (Q, D) queries: (Q, count) scores, descending, and row numbers.

        `allowed` holds a boolean for each row; None allows all from row `first` on. Where fewer are allowed, the rest
        are -1.
        """
        if allowed is not None and first == 0 and len(queries) >= _BLAS_FROM_QUERIES:
            return self._among(np.flatnonzero(allowed), queries, count)
        if allowed is None and first == 0 and (copy := self._copy) is not None and copy.serves(count):
            return self._with_copy(copy, queries, count)
        use_cores(len(queries))
        params = None
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            bits[: first // 8] = 0
            bits[first // 8 : first // 8 + 1] &= 0xFF & (0xFF << first % 8)
            params = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        elif first:
            params = faiss.SearchParameters(sel=faiss.IDSelectorRange(first, len(self)))
        scores, rows = self._faiss.search(queries, count, params=params)
        return scores, rows

    def _among(self, allowed: Rows, queries: Vectors, count: int) -> tuple[Vectors, Rows]:
        """By BLAS over copies of the allowed rows; with a selector faiss would look at each of them for each query."""
        use_cores(len(queries))
        scores, rows = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        for start in range(0, len(allowed), _COPIED // self.dim):
            some = allowed[start : start + _COPIED // self.dim]
            found, places = faiss.knn(queries, self.vectors(some), min(count, len(some)), faiss.METRIC_INNER_PRODUCT)
            scores, rows = best(np.hstack([scores, found]), np.hstack([rows, some[places]]), count)
        return scores, rows

    def copy_to_gpu(self, newer: int) -> bool:
        """Whether there was none, or one that lacks more than `newer` rows, and one was made.

        Raises RuntimeError without room.
        """
        if self._copy is not None and len(self) - self._copy.rows <= newer:
            return False
        self._copy = None  # its room is needed
        self._copy = GpuReplica(self._faiss)
        return True

    def _with_copy(self, copy: GpuReplica, queries: Vectors, count: int) -> tuple[Vectors, Rows]:
        scores, rows = copy.search(queries, count)
        if copy.rows < len(self):
            newest_scores, newest = self.search(queries, min(count, len(self) - copy.rows), None, copy.rows)
            scores, rows = best(np.hstack([scores, newest_scores]), np.hstack([rows, newest]), count)
        return scores, rows

    def scores(self, queries: Vectors, rows: Rows) -> Vectors:
        """(Q, n) scores of (Q, n) rows, those of each query its own; of a row -1 it is minus infinity."""
        queries, rows = np.ascontiguousarray(queries, np.float32), np.ascontiguousarray(rows)
        scores = np.empty(rows.shape, np.float32)
        if not rows.size:  # faiss refuses to score nothing
            return scores
        use_cores(len(queries))
        self._faiss.compute_distance_subset(
            len(queries), faiss.swig_ptr(queries), rows.shape[1], faiss.swig_ptr(scores), faiss.swig_ptr(rows)
        )
        scores[rows < 0] = -np.inf
        return scores


def best(scores: Vectors, rows: Rows, count: int) -> tuple[Vectors, Rows]:
    """The best `count` of (Q, n) scores with their rows, descending."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)


def stay_on_one_core() -> None:
    """Let faiss compute on one thread whatever the calling thread asks of it from now on."""
    _thread.one_core = True
    faiss.omp_set_num_threads(1)


def use_cores(queries: int) -> None:
    """Set the number of faiss threads for a search of so many queries. The number belongs to the calling thread."""
    alone = queries == 1 or getattr(_thread, "one_core", False)  # one query is fastest on one thread
    faiss.omp_set_num_threads(1 if alone else _CORES)
