"""What a gallery holds in memory: vectors, what their rows mean, and an index over the first of them. No locks."""

import bisect
import math
from collections.abc import Sequence

import numpy as np

from service.columns import Columns
from service.engine import Vectors
from service.index import Mask, Rows
from service.index.approximate import Approximate
from service.index.flat import FlatIndex
from service.records import Known

_FEW = 64  # with so few rows shut out, an exact search a little deeper is cheaper than looking at a mask for each row


class Contents:
    """Rows are only ever added; a deleted one is marked as dead and wiped, until a copy without the dead is made."""

    def __init__(self, dim: int) -> None:
        self.vectors = FlatIndex(dim)
        self.columns = Columns()
        self.approximate: Approximate | None = None

    def __len__(self) -> int:
        """Rows, the dead among them."""
        return len(self.columns)

    def add(self, entries: Sequence[int], known: Sequence[Known], vectors: Vectors) -> None:
        """Append (n, D) vectors and what is known of them; entry ids ascend. Entries that were here before are passed
        over, whether they are still here or not, so that changes may be made once more.
        """
        new = bisect.bisect_right(entries, self.columns.last)
        if new < len(entries):
            self.vectors.add(vectors[new:])
            self.columns.append(entries[new:], known[new:])

    def relabel(self, entry: int, known: Known) -> None:
        """Replace what is known of an entry."""
        self.columns.relabel(entry, known)

    def remove(self, entries: Sequence[int]) -> None:
        """Mark entries as dead, and overwrite whatever their vectors left here."""
        rows = self.columns.bury(entries)
        self.vectors.wipe(rows)
        if self.approximate is not None:
            self.approximate.wipe(rows)

    def nearest(self, queries: Vectors, count: int, allowed: Mask) -> tuple[Vectors, Rows]:
        """(Q, n) scores, descending, and rows for each of (Q, D) queries; n is `count`, or as many as are allowed."""
        total = int(np.count_nonzero(allowed))
        count = min(count, total)
        if count == 0:
            return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
        return self._proposed(queries, count, allowed, total) or self._exact(queries, count, allowed, total)

    def _exact(self, queries: Vectors, count: int, allowed: Mask, total: int) -> tuple[Vectors, Rows]:
        shut_out = len(allowed) - total
        if shut_out > _FEW:
            return self.vectors.search(queries, count, allowed)
        scores, rows = self.vectors.search(queries, count + shut_out, None)
        if shut_out:
            kept = np.argsort(~allowed[rows], axis=1, kind="stable")[:, :count]
            scores, rows = np.take_along_axis(scores, kept, axis=1), np.take_along_axis(rows, kept, axis=1)
        return scores, rows

    def _proposed(self, queries: Vectors, count: int, allowed: Mask, total: int) -> tuple[Vectors, Rows] | None:
        """As `nearest`, by the index; None where it cannot tell.

        The best of those that a filter keeps are among more of all rows, however what is kept lies; where they are not
        among as many as that would take if it lay anywhere, the index does not know them.
        """
        alive = len(self) - self.columns.dead
        if self.approximate is None or alive < self.approximate.least_alive * len(self):
            return None
        rows = self.approximate.search(queries, math.ceil(count * len(self) / total))
        if rows is None:
            return None
        if total < len(self):
            rows[~allowed[rows]] = -1
        scores = self.vectors.scores(queries, rows)
        if (covered := len(self.approximate)) < len(self):
            newest_scores, newest = self.vectors.search(queries, count, allowed, first=covered)
            scores, rows = np.hstack([scores, newest_scores]), np.hstack([rows, newest])
        best = np.argsort(np.where(rows < 0, np.inf, -scores), axis=1, kind="stable")[:, :count]
        scores, rows = np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)
        return (scores, rows) if (rows >= 0).all() else None
