"""Reads a segment in small steps, so that changes wait only briefly for its lock."""

from collections.abc import Callable, Iterator

import faiss
import numpy as np

from service.core.types import Mask, Rows, Vectors
from service.index.exact import select_best
from service.index.rwlock import ReadWriteLock
from service.index.segment import Segment

_CHUNK = 1024  # rows read under the lock at once
_COMPARED = 8192  # rows compared at once


class SegmentReader:
    """Takes the read lock for each step. Q queries, D dimensions of a vector."""

    def __init__(self, segment: Segment, lock: ReadWriteLock, check: Callable[[], None]) -> None:
        """`check` is called between steps. It raises an exception to cancel the work."""
        self.segment = segment
        self.lock = lock
        self.check = check

    def live(self, count: int | None = None) -> Mask:
        """(count,) booleans: which of the first rows are live now. None reads all rows."""
        with self.lock.read():
            live: Mask = self.segment.metadata.live[:count].copy()
        return live

    def vectors(self, rows: Rows, chunk: int = _CHUNK) -> Iterator[Vectors]:
        """(n, D) float32 vectors of `rows`, in chunks."""
        for start in range(0, len(rows), chunk):
            self.check()
            with self.lock.read():
                vectors = self.segment.exact.vectors(rows[start : start + chunk])
            yield vectors

    def search(self, queries: Vectors, rows: Rows, count: int) -> Rows:
        """Exact search among `rows` for (Q, D) float32 queries: (Q, n) rows, best first, n <= `count`."""
        scores, found = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        for start in range(0, len(rows), _COMPARED):
            chunk = rows[start : start + _COMPARED]
            vectors = np.concatenate(list(self.vectors(chunk)))
            more, places = faiss.knn(queries, vectors, min(count, len(chunk)), faiss.METRIC_INNER_PRODUCT)
            scores, found = select_best(np.hstack([scores, more]), np.hstack([found, chunk[places]]), count)
        return found
