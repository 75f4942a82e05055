"""What a gallery holds in memory: vectors, what their rows mean, and an index over the first of them. No locks."""

import bisect
import math
from collections.abc import Sequence

import numpy as np

from service.core.models import EntryMetadata
from service.core.types import Mask, Rows, Vectors
from service.index.ann import Approximate
from service.index.exact import FlatIndex, best
from service.index.metadata import MetadataTable

_FEW = 64  # with so few rows shut out, an exact search a little deeper is cheaper than looking at a mask for each row


class Segment:
    """Rows are only ever added; a deleted one is marked as dead and wiped, until a copy without the dead is made."""

    def __init__(self, dim: int) -> None:
        self.vectors = FlatIndex(dim)
        self.columns = MetadataTable()
        self.approximate: Approximate | None = None
        self.set_aside: frozenset[int] = frozenset()  # entries that are damaged: kept, and in no row

    def __len__(self) -> int:
        """Rows, the dead among them."""
        return len(self.columns)

    @property
    def is_exact(self) -> bool:
        """Whether searches look at every vector: there is no index, or none whose recall is known to be enough."""
        index, alive = self.approximate, len(self) - self.columns.dead
        return index is None or not index.trusted or alive < index.min_live_fraction * len(self)

    def add(self, entries: Sequence[int], known: Sequence[EntryMetadata], vectors: Vectors) -> None:
        """Append (n, D) vectors and what is known of them; entry ids ascend. Entries that were here before are passed
        over, whether they are still here or not, so that changes may be made once more.
        """
        new = bisect.bisect_right(entries, self.columns.last)
        if new < len(entries):
            self.vectors.add(vectors[new:])
            self.columns.append(entries[new:], known[new:])

    def update_metadata(self, entry: int, known: EntryMetadata) -> None:
        """Replace what is known of an entry."""
        self.columns.update_metadata(entry, known)

    def remove(self, entries: Sequence[int]) -> None:
        """Mark entries as dead, and overwrite whatever their vectors left here."""
        self.set_aside = self.set_aside.difference(entries)
        rows = self.columns.mark_deleted(entries)
        self.vectors.wipe(rows)
        if self.approximate is not None:
            self.approximate.wipe(rows)

    def nearest(self, queries: Vectors, count: int, allowed: Mask) -> tuple[Vectors, Rows]:
        """(Q, n) scores, descending, and rows for each of (Q, D) queries; n is `count`, or as many as are allowed."""
        total = int(np.count_nonzero(allowed))
        count = min(count, total)
        if count == 0:
            return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
        return self._search_ann(queries, count, allowed) or self._exact(queries, count, allowed, total)

    def _exact(self, queries: Vectors, count: int, allowed: Mask, total: int) -> tuple[Vectors, Rows]:
        shut_out = len(allowed) - total
        if shut_out > _FEW:
            return self.vectors.search(queries, count, allowed)
        scores, rows = self.vectors.search(queries, count + shut_out, None)
        if shut_out:
            kept = np.argsort(~allowed[rows], axis=1, kind="stable")[:, :count]
            scores, rows = np.take_along_axis(scores, kept, axis=1), np.take_along_axis(rows, kept, axis=1)
        return scores, rows

    def _search_ann(self, queries: Vectors, count: int, allowed: Mask) -> tuple[Vectors, Rows] | None:
        """As `nearest`, by the index; None where it cannot tell. All rows that it does not propose are scored.

        The best of those that a filter keeps are among more of all rows, however what is kept lies; where they are not
        among as many as that would take if it lay anywhere, the index does not know them.
        """
        index = self.approximate
        if index is None or self.is_exact:
            return None
        covered, held_out = len(index), index.held_out[allowed[index.held_out]]
        rows = np.broadcast_to(held_out, (len(queries), len(held_out)))
        if within := int(np.count_nonzero(allowed[:covered])) - len(held_out):
            proposed = index.search(queries, math.ceil(count * covered / within))
            if proposed is None:
                return None
            proposed[~allowed[proposed]] = -1
            if (np.count_nonzero(proposed >= 0, axis=1) < min(count, within)).any():
                return None
            rows = np.hstack([proposed, rows])
        scores = self.vectors.scores(queries, rows)
        if covered < len(self):
            newest_scores, newest = self.vectors.search(queries, count, allowed, first=covered)
            scores, rows = np.hstack([scores, newest_scores]), np.hstack([rows, newest])
        return best(np.where(rows < 0, -np.inf, scores), rows, count)
