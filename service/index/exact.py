"""Exact search over all vectors. It also computes every score of approximate searches.

Shapes: N rows, Q queries, D dimensions.
"""

import os
import threading

import faiss
import numpy as np

from service.core.types import Mask, Rows, Vectors
from service.index.gpu import GpuReplica

_BLAS_FROM_QUERIES = 4
_MAX_COPIED = 2**24  # values copied at once
_CORES = os.cpu_count() or 1
_thread = threading.local()


class ExactIndex:
    """Exact inner-product search."""

    def __init__(self, dim: int) -> None:
        self._faiss = faiss.IndexFlatIP(dim)
        self._replica: GpuReplica | None = None
        # faiss compares this process-wide setting with queries x dimensions. Its default keeps a batch from using BLAS.
        faiss.cvar.distance_compute_blas_threshold = _BLAS_FROM_QUERIES * dim

    def __len__(self) -> int:
        return int(self._faiss.ntotal)

    @property
    def dim(self) -> int:
        """D, the dimension of the vectors."""
        return int(self._faiss.d)

    def reserve(self, rows: int) -> None:
        """Allocate memory for `rows` rows at once. Otherwise it grows by doubling, which copies all rows."""
        held = self._faiss.codes.size()
        self._faiss.codes.resize(max(held, 4 * self.dim * rows))
        self._faiss.codes.resize(held)  # this keeps the capacity

    def add(self, vectors: Vectors) -> None:
        """Append (n, D) float32 rows."""
        self._faiss.add(np.ascontiguousarray(vectors, np.float32))

    def vectors(self, rows: Rows) -> Vectors:
        """(n, D) float32 vectors of (n,) rows."""
        found: Vectors = self._faiss.reconstruct_batch(rows)
        return found

    def wipe(self, rows: Rows) -> None:
        """Overwrite the vectors of (n,) rows with zeros. Row numbers do not change."""
        self._replica = None
        vectors = faiss.rev_swig_ptr(self._faiss.get_xb(), len(self) * self.dim).reshape(len(self), self.dim)
        vectors[rows] = 0.0

    def search(self, queries: Vectors, count: int, allowed: Mask | None, first: int = 0) -> tuple[Vectors, Rows]:
        """The nearest rows for (Q, D) float32 queries: (Q, count) float32 scores, descending, and int64 rows.

        `allowed` is an (N,) mask, or None for all rows from `first` on. Missing hits have the row -1.
        """
        if allowed is not None and first == 0 and len(queries) >= _BLAS_FROM_QUERIES:
            return self._search_copied(np.flatnonzero(allowed), queries, count)
        if allowed is None and first == 0 and (replica := self._replica) is not None and replica.serves(count):
            return self._search_replica(replica, queries, count)
        set_thread_count(len(queries))
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

    def _search_copied(self, allowed: Rows, queries: Vectors, count: int) -> tuple[Vectors, Rows]:
        """Search copies of the allowed rows by BLAS. With a selector faiss tests each row for each query instead."""
        set_thread_count(len(queries))
        scores, rows = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        step = _MAX_COPIED // self.dim
        for start in range(0, len(allowed), step):
            chunk = allowed[start : start + step]
            found, places = faiss.knn(queries, self.vectors(chunk), min(count, len(chunk)), faiss.METRIC_INNER_PRODUCT)
            scores, rows = select_best(np.hstack([scores, found]), np.hstack([rows, chunk[places]]), count)
        return scores, rows

    def copy_to_gpu(self, max_missing: int) -> bool:
        """Make a GPU replica, unless there is one that lacks at most `max_missing` rows. Returns whether it did.

        Raises RuntimeError if the GPU has too little memory.
        """
        if self._replica is not None and len(self) - self._replica.rows <= max_missing:
            return False
        self._replica = None  # frees its memory first
        self._replica = GpuReplica(self._faiss)
        return True

    def _search_replica(self, replica: GpuReplica, queries: Vectors, count: int) -> tuple[Vectors, Rows]:
        scores, rows = replica.search(queries, count)
        if replica.rows < len(self):
            newest_scores, newest = self.search(queries, min(count, len(self) - replica.rows), None, replica.rows)
            scores, rows = select_best(np.hstack([scores, newest_scores]), np.hstack([rows, newest]), count)
        return scores, rows

    def scores(self, queries: Vectors, rows: Rows) -> Vectors:
        """(Q, n) float32 scores of (Q, n) rows for (Q, D) float32 queries; minus infinity for the row -1."""
        queries, rows = np.ascontiguousarray(queries, np.float32), np.ascontiguousarray(rows)
        scores = np.empty(rows.shape, np.float32)
        if not rows.size:  # faiss raises an error for an empty array
            return scores
        set_thread_count(len(queries))
        self._faiss.compute_distance_subset(
            len(queries), faiss.swig_ptr(queries), rows.shape[1], faiss.swig_ptr(scores), faiss.swig_ptr(rows)
        )
        scores[rows < 0] = -np.inf
        return scores


def select_best(scores: Vectors, rows: Rows, count: int) -> tuple[Vectors, Rows]:
    """The `count` largest of (Q, n) scores, descending, and their rows."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)


def limit_to_one_core() -> None:
    """Make faiss use one thread in all later calls of the calling thread."""
    _thread.one_core = True
    faiss.omp_set_num_threads(1)


def set_thread_count(queries: int) -> None:
    """Set the number of faiss threads for a search of `queries` queries by the calling thread."""
    single = queries == 1 or getattr(_thread, "one_core", False)  # one query is fastest on one thread
    faiss.omp_set_num_threads(1 if single else _CORES)
