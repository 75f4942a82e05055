"""One gallery in memory: searches and changes. It is a cache of the database.

A query is an (n, D) float32 array of unit vectors of one person. The score of an entry is its largest cosine with them.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np

from service.core.clock import now
from service.core.models import EntryMetadata
from service.core.types import Mask, Rows, Vectors
from service.index.metadata import Filter, MetadataTable
from service.index.reranking import Reranking, k_reciprocal
from service.index.rwlock import ReadWriteLock
from service.index.segment import Segment

_CHUNK = 4096  # rows scored in one product

Change = Callable[[Segment], None]


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry and its score. `distance` is set by re-ranking."""

    entry_id: int
    score: float
    distance: float | None = None


@dataclass(frozen=True, slots=True)
class Grouping:
    """Persons are ranked by their best or their mean score. `examples` is the number of hits shown for each."""

    by: Literal["best", "mean"]
    examples: int


@dataclass(frozen=True, slots=True)
class PersonHit:
    """A person, with the best and the mean score of all their entries that pass the filter.

    `score` is the one that persons are ranked by. `entries` counts the entries; `examples` are the best of them.
    """

    person_id: str
    score: float
    best: float
    mean: float
    entries: int
    examples: tuple[Hit, ...]


class GalleryIndex:
    """Many threads search it. One thread at a time changes it, after each commit and in the order of commits.

    A sequence of changes may be applied twice: they are idempotent. Index maintenance builds new parts while searches
    run, reads under the lock, and then swaps the parts in.
    """

    def __init__(self, dim: int, retention: int | None = None, clock: Callable[[], int] = now) -> None:
        """Searches skip entries older than `retention` microseconds by `clock`, even before they are deleted."""
        self.retention = retention
        self.segment = Segment(dim)
        self.lock = ReadWriteLock()
        self._clock = clock
        self._journals: tuple[list[Change], ...] = ()
        self._journals_lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.segment) - self.segment.metadata.deleted_count

    @property
    def set_aside(self) -> frozenset[int]:
        """Ids of entries that are damaged in the database. They exist, but no search finds them."""
        return self.segment.set_aside

    @property
    def persons(self) -> int:
        """The number of persons with an entry."""
        return self.segment.metadata.distinct_persons

    def add(self, entries: Sequence[int], metadata: Sequence[EntryMetadata], vectors: Vectors) -> None:
        """Add committed entries with (n, D) unit vectors."""
        self._change(lambda segment: segment.add(entries, metadata, vectors))

    def update_metadata(self, entry: int, metadata: EntryMetadata) -> None:
        """Replace the metadata of an entry."""
        self._change(lambda segment: segment.update_metadata(entry, metadata))

    def remove(self, entries: Sequence[int]) -> None:
        """Delete entries, and overwrite their vectors at once."""
        self._change(lambda segment: segment.remove(entries))

    def compact(self, copy: Callable[[MetadataTable, Rows], Segment]) -> None:
        """Replace the segment by a copy without deleted rows. Changes during the copy are applied to both.

        `copy` gets the metadata of the live rows and their (n,) row numbers in the old segment. It takes the read lock
        itself.
        """
        with self.recording() as changes:
            with self.lock.read():
                metadata, rows = self.segment.metadata.compacted()
                set_aside = self.segment.set_aside
            segment = copy(metadata, rows)
            segment.set_aside = set_aside
            with self.lock.write():
                for change in changes:
                    change(segment)
                self.segment = segment

    @contextmanager
    def recording(self) -> Iterator[list[Change]]:
        """A list to which every change inside the context is appended.

        A copy of the segment or of the database that starts inside the context applies them to catch up.
        """
        changes: list[Change] = []
        with self._journals_lock:
            self._journals = (*self._journals, changes)
        try:
            yield changes
        finally:
            with self._journals_lock:
                self._journals = tuple(journal for journal in self._journals if journal is not changes)

    def catch_up(self, changes: Sequence[Change]) -> None:
        """Apply the changes that another gallery recorded."""
        for change in changes:
            self._change(change)

    def _change(self, change: Change) -> None:
        with self.lock.write():
            for journal in self._journals:
                journal.append(change)
            change(self.segment)

    def search(self, queries: Sequence[Vectors], top_k: int, where: Filter) -> list[list[Hit]]:
        """The best `top_k` entries of each query, best first; ties by entry id."""
        with self.lock.read():
            scores, rows = self.segment.search(np.concatenate(queries), top_k, self._allowed(where))
            ends = np.cumsum([len(query) for query in queries])[:-1]
            found = [
                _merged(score, row, top_k)
                for score, row in zip(np.split(scores, ends), np.split(rows, ends), strict=True)
            ]
            entries = [self.segment.metadata.entries[row] for _, row in found]
        return [_hits(score, ids) for (score, _), ids in zip(found, entries, strict=True)]

    def search_reranked(self, query: Vectors, top_k: int, where: Filter, reranking: Reranking) -> list[Hit]:
        """The `top_k` nearest entries after re-ranking the best `reranking.candidates`; ties by score."""
        with self.lock.read():
            found = self.segment.search(query, reranking.candidates, self._allowed(where))
            scores, rows = _merged(*found, reranking.candidates)
            vectors, entries = self.segment.exact.vectors(rows), self.segment.metadata.entries[rows].tolist()
        distances = k_reciprocal(scores, vectors, reranking)
        hits = [Hit(*hit) for hit in zip(entries, scores.tolist(), distances.tolist(), strict=True)]
        return sorted(hits, key=lambda hit: (hit.distance, -hit.score, hit.entry_id))[:top_k]

    def search_persons(self, query: Vectors, top_k: int, where: Filter, grouping: Grouping) -> list[PersonHit]:
        """The `top_k` persons with the largest score, best first. `where.has_person` must be set."""
        with self.lock.read():
            allowed = self._allowed(where)
            if grouping.by == "best":
                codes = self._persons_by_best(query, top_k, allowed)
            else:
                codes = self._persons_by_mean(query, top_k, allowed)
            of_person = np.flatnonzero(allowed & self.segment.metadata.of_persons(codes))
            scores = self._scores(query, of_person)
            entries, persons = self.segment.metadata.entries[of_person], self.segment.metadata.persons[of_person]
            names = {code: self.segment.metadata.person_name(code) for code in codes}
        hits = []
        for code, name in names.items():
            own = persons == code
            best_first = _hits(scores[own], entries[own])
            best, mean = best_first[0].score, float(scores[own].mean())
            score = best if grouping.by == "best" else mean
            hits.append(PersonHit(name, score, best, mean, len(best_first), tuple(best_first[: grouping.examples])))
        return sorted(hits, key=lambda hit: (-hit.score, hit.person_id))

    def _persons_by_best(self, query: Vectors, top_k: int, allowed: Mask) -> list[int]:
        """Codes of the persons of the nearest entries. Searches deeper until there are `top_k` persons."""
        total = int(np.count_nonzero(allowed))
        depth = 4 * top_k
        while total:
            depth = min(depth, total)
            scores, rows = self.segment.search(query, depth, allowed)
            # Each vector has a list of its own. Below the highest last score, a list may lack better entries.
            complete = scores >= scores[:, -1].max()
            scores, rows = scores[complete], rows[complete]
            codes = list(
                dict.fromkeys(self.segment.metadata.persons[rows[np.argsort(-scores, kind="stable")]].tolist())
            )
            if len(codes) >= top_k or depth == total:
                return codes[:top_k]
            depth *= 4
        return []

    def _persons_by_mean(self, query: Vectors, top_k: int, allowed: Mask) -> list[int]:
        rows = np.flatnonzero(allowed)
        codes, place = np.unique(self.segment.metadata.persons[rows], return_inverse=True)
        mean = np.bincount(place, self._scores(query, rows), len(codes)) / np.bincount(place, minlength=len(codes))
        found: list[int] = codes[np.argsort(-mean, kind="stable")[:top_k]].tolist()
        return found

    def _scores(self, query: Vectors, rows: Rows) -> Vectors:
        """(n,) float32 scores of (n,) rows."""
        scores = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            scores[chunk] = (self.segment.exact.vectors(rows[chunk]) @ query.T).max(1)
        return scores

    def _allowed(self, where: Filter) -> Mask:
        if self.retention is None:
            return self.segment.metadata.allowed(where)
        return self.segment.metadata.allowed(where, self._clock() - self.retention)


def _merged(scores: Vectors, rows: Rows, count: int) -> tuple[Vectors, Rows]:
    """Merge the (n, k) results of the n vectors of a query: (m,) largest scores and rows, best first, m <= `count`.

    This is exact: a row among the best `count` is in the list of the vector that gives its largest score.
    """
    found = rows >= 0
    scores, rows = scores[found], rows[found]
    if len(found) > 1:
        order = np.argsort(-scores, kind="stable")
        scores, rows = scores[order], rows[order]
        _, first = np.unique(rows, return_index=True)
        first.sort()
        scores, rows = scores[first], rows[first]
    return scores[:count], rows[:count]


def _hits(scores: Vectors, entries: Rows) -> list[Hit]:
    order = np.lexsort((entries, -scores))
    return [Hit(entry, score) for entry, score in zip(entries[order].tolist(), scores[order].tolist(), strict=True)]
