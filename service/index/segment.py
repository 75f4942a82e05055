"""The rows of a gallery: vectors, metadata, and an approximate index of the first rows. It takes no lock."""

import bisect
import math
from collections.abc import Sequence

import numpy as np

from service.core.models import EntryMetadata
from service.core.types import Mask, Rows, Vectors
from service.index.ann import AnnIndex
from service.index.exact import ExactIndex, select_best
from service.index.metadata import MetadataTable

_FEW_EXCLUDED = 64  # excluded rows up to which a deeper exact search beats a mask


class Segment:
    """Rows are appended only. A deleted row is marked and overwritten, and stays until the segment is compacted."""

    def __init__(self, dim: int) -> None:
        self.exact = ExactIndex(dim)
        self.metadata = MetadataTable()
        self.ann: AnnIndex | None = None
        self.set_aside: frozenset[int] = frozenset()  # ids of damaged entries, which have no row

    def __len__(self) -> int:
        """The number of rows, including deleted ones."""
        return len(self.metadata)

    @property
    def is_exact(self) -> bool:
        """Whether searches are exact, because there is no index or its measured recall is not sufficient."""
        index, live = self.ann, len(self) - self.metadata.deleted_count
        return index is None or not index.trusted or live < index.min_live_fraction * len(self)

    def add(self, entries: Sequence[int], metadata: Sequence[EntryMetadata], vectors: Vectors) -> None:
        """Append (n, D) float32 vectors with their metadata. Entry ids ascend.

        Skips ids up to the largest one ever added, so a change may be applied twice.
        """
        new = bisect.bisect_right(entries, self.metadata.last)
        if new < len(entries):
            self.exact.add(vectors[new:])
            self.metadata.append(entries[new:], metadata[new:])

    def update_metadata(self, entry: int, metadata: EntryMetadata) -> None:
        """Replace the metadata of an entry."""
        self.metadata.update_metadata(entry, metadata)

    def remove(self, entries: Sequence[int]) -> None:
        """Mark entries as deleted, and overwrite their vectors everywhere."""
        self.set_aside = self.set_aside.difference(entries)
        rows = self.metadata.mark_deleted(entries)
        self.exact.wipe(rows)
        if self.ann is not None:
            self.ann.wipe(rows)

    def search(self, queries: Vectors, count: int, allowed: Mask) -> tuple[Vectors, Rows]:
        """The nearest allowed rows for (Q, D) float32 queries: (Q, n) float32 scores, descending, and int64 rows.

        `allowed` is an (N,) mask; n is the smaller of `count` and the number of allowed rows.
        """
        total = int(np.count_nonzero(allowed))
        count = min(count, total)
        if count == 0:
            return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
        return self._search_ann(queries, count, allowed) or self._search_exact(queries, count, allowed, total)

    def _search_exact(self, queries: Vectors, count: int, allowed: Mask, total: int) -> tuple[Vectors, Rows]:
        excluded = len(allowed) - total
        if excluded > _FEW_EXCLUDED:
            return self.exact.search(queries, count, allowed)
        scores, rows = self.exact.search(queries, count + excluded, None)
        if excluded:
            kept = np.argsort(~allowed[rows], axis=1, kind="stable")[:, :count]
            scores, rows = np.take_along_axis(scores, kept, axis=1), np.take_along_axis(rows, kept, axis=1)
        return scores, rows

    def _search_ann(self, queries: Vectors, count: int, allowed: Mask) -> tuple[Vectors, Rows] | None:
        """As `search`, with candidates from the index. None if they do not suffice; then an exact search is needed.

        With a filter, fetches top_k / selectivity candidates; None if too few of them pass the filter. Held-out rows,
        and rows newer than the index, are always scored.
        """
        index = self.ann
        if index is None or self.is_exact:
            return None
        covered, held_out = len(index), index.held_out[allowed[index.held_out]]
        rows = np.broadcast_to(held_out, (len(queries), len(held_out)))
        if passing := int(np.count_nonzero(allowed[:covered])) - len(held_out):
            proposed = index.search(queries, math.ceil(count * covered / passing))
            if proposed is None:
                return None
            proposed[~allowed[proposed]] = -1
            if (np.count_nonzero(proposed >= 0, axis=1) < min(count, passing)).any():
                return None
            rows = np.hstack([proposed, rows])
        scores = self.exact.scores(queries, rows)
        if covered < len(self):
            newest_scores, newest = self.exact.search(queries, count, allowed, first=covered)
            scores, rows = np.hstack([scores, newest_scores]), np.hstack([rows, newest])
        return select_best(np.where(rows < 0, -np.inf, scores), rows, count)
