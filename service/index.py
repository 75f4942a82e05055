"""The vector index: rows numbered from 0 in, best rows out. It knows nothing of entries, people or deletion.

An index kind is a class with the methods below; the gallery keeps what rows mean and which are alive (`columns`),
so an approximate or GPU index needs nothing but these.
"""

import os

import faiss
import numpy as np
import numpy.typing as npt

from service.engine import Vectors

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

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

    def add(self, vectors: Vectors) -> None:
        """Append (n, D) rows."""
        self._faiss.add(np.ascontiguousarray(vectors, np.float32))

    def vectors(self, rows: Rows) -> Vectors:
        """The (n, D) vectors of these rows."""
        found: Vectors = self._faiss.reconstruct_batch(rows)
        return found

    def wipe(self, rows: Rows) -> None:
        """Overwrite the vectors of these rows; the rows stay."""
        vectors = faiss.rev_swig_ptr(self._faiss.get_xb(), len(self) * self._faiss.d).reshape(len(self), self._faiss.d)
        vectors[rows] = 0.0

    def search(self, queries: Vectors, count: int, allowed: Mask | None) -> tuple[Vectors, Rows]:
        """The best `count` rows for each of (Q, D) queries: (Q, count) scores, descending, and row numbers.

        `allowed` holds a boolean for each row; None allows all. Where fewer rows are allowed, the rest are -1.
        """
        # The number of OpenMP threads belongs to the calling thread; one query is fastest without company.
        faiss.omp_set_num_threads(1 if len(queries) == 1 else _CORES)
        params = None
        if allowed is not None:
            # faiss's Python wrappers take arrays and keyword arguments, its type hints are those of the C++ beneath.
            among = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))  # type: ignore[call-arg,arg-type]
            params = faiss.SearchParameters(sel=among)  # type: ignore[call-arg]
        scores, rows = self._faiss.search(queries, count, params=params)
        return scores, rows
