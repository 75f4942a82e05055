"""Every vector, and exact search over them."""

import os

import faiss
import numpy as np

from service.engine import Vectors
from service.index import Mask, Rows

_BLAS_FROM_QUERIES = 4
_CORES = os.cpu_count() or 1


class FlatIndex:
    """Exact inner product over every row."""

    def __init__(self, dim: int) -> None:
        self._faiss = faiss.IndexFlatIP(dim)
        # faiss compares this process-wide setting with queries x dimensions; its default keeps a whole batch from BLAS.
        faiss.cvar.distance_compute_blas_threshold = _BLAS_FROM_QUERIES * dim

    def __len__(self) -> int:
        return int(self._faiss.ntotal)

    @property
    def dim(self) -> int:
        """Numbers a vector has."""
        return int(self._faiss.d)

    def add(self, vectors: Vectors) -> None:
        """Append (n, D) rows."""
        self._faiss.add(np.ascontiguousarray(vectors, np.float32))

    def vectors(self, rows: Rows) -> Vectors:
        """The (n, D) vectors of these rows."""
        found: Vectors = self._faiss.reconstruct_batch(rows)
        return found

    def wipe(self, rows: Rows) -> None:
        """Overwrite the vectors of these rows; the rows stay."""
        vectors = faiss.rev_swig_ptr(self._faiss.get_xb(), len(self) * self.dim).reshape(len(self), self.dim)
        vectors[rows] = 0.0

    def search(self, queries: Vectors, count: int, allowed: Mask | None, first: int = 0) -> tuple[Vectors, Rows]:
        """The best `count` rows for each of (Q, D) queries: (Q, count) scores, descending, and row numbers.

        `allowed` holds a boolean for each row; None allows all from row `first` on. Where fewer are allowed, the rest
        are -1.
        """
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

    def scores(self, queries: Vectors, rows: Rows) -> Vectors:
        """(Q, n) scores of (Q, n) rows, those of each query its own; of a row -1 it is minus infinity."""
        queries, rows = np.ascontiguousarray(queries, np.float32), np.ascontiguousarray(rows)
        scores = np.empty(rows.shape, np.float32)
        use_cores(len(queries))
        self._faiss.compute_distance_subset(
            len(queries), faiss.swig_ptr(queries), rows.shape[1], faiss.swig_ptr(scores), faiss.swig_ptr(rows)
        )
        scores[rows < 0] = -np.inf
        return scores


def use_cores(queries: int) -> None:
    """Set how many threads faiss takes for so many queries; the number belongs to the calling thread."""
    faiss.omp_set_num_threads(1 if queries == 1 else _CORES)  # one query is fastest without company
