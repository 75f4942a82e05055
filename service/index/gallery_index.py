"""A gallery in memory: the searches over its contents. A cache of what the database holds.

A query is an (n, D) array of unit vectors of one person; the score of an entry is its greatest cosine with them.
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

_CHUNK = 4096  # rows that are scored at a time

Change = Callable[[Segment], None]


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry and its score; where re-ranked, also the distance by which."""

    entry_id: int
    score: float
    distance: float | None = None


@dataclass(frozen=True, slots=True)
class Grouping:
    """How persons are ranked, and how many hits of each are shown."""

    by: Literal["best", "mean"]
    examples: int


@dataclass(frozen=True, slots=True)
class PersonHit:
    """A person: best and mean score over all of its entries that the filter lets through; the best as examples.

    `score` is the one of the two that persons are ranked by.
    """

    person_id: str
    score: float
    best: float
    mean: float
    entries: int
    examples: tuple[Hit, ...]


class GalleryIndex:
    """Searched by many threads; changed by one at a time, after the commit and in the order of commits.

    Changes may be repeated, in their order: what they say of an entry is the same the second time. `upkeep` makes it
    quicker meanwhile: it reads under the lock, works beside everybody, and exchanges.
    """

    def __init__(self, dim: int, retention: int | None = None, clock: Callable[[], int] = now) -> None:
        """Entries older than `retention` (microseconds) answer no search by `clock`, also while they are still here."""
        self.retention = retention
        self.contents = Segment(dim)
        self.lock = ReadWriteLock()
        self._clock = clock
        self._journals: tuple[list[Change], ...] = ()
        self._journals_lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.contents) - self.contents.columns.dead

    @property
    def set_aside(self) -> frozenset[int]:
        """Entries that are damaged in the database: they are there, and answer no search."""
        return self.contents.set_aside

    @property
    def persons(self) -> int:
        """How many persons there are entries of."""
        return self.contents.columns.distinct_persons

    def add(self, entries: Sequence[int], known: Sequence[EntryMetadata], vectors: Vectors) -> None:
        """Make committed entries findable."""
        self._change(lambda contents: contents.add(entries, known, vectors))

    def update_metadata(self, entry: int, known: EntryMetadata) -> None:
        """Replace what is known of an entry."""
        self._change(lambda contents: contents.update_metadata(entry, known))

    def remove(self, entries: Sequence[int]) -> None:
        """Make entries unfindable, and wipe their vectors at once."""
        self._change(lambda contents: contents.remove(entries))

    def compact(self, copy: Callable[[MetadataTable, Rows], Segment]) -> None:
        """Put a copy without the dead in the place of the contents; what changes while it is made changes both.

        `copy` makes it of new columns and the rows they were taken from, and holds the lock while it reads.
        """
        with self.recording() as changes:
            with self.lock.read():
                columns, rows = self.contents.columns.compacted()
                set_aside = self.contents.set_aside
            contents = copy(columns, rows)
            contents.set_aside = set_aside
            with self.lock.write():
                for change in changes:
                    change(contents)
                self.contents = contents

    @contextmanager
    def recording(self) -> Iterator[list[Change]]:
        """Within it the list gains every change that is made. A copy that was begun within it, of these contents or of
        the database, catches up by them.
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
        """Make the changes that another gallery recorded."""
        for change in changes:
            self._change(change)

    def _change(self, change: Change) -> None:
        with self.lock.write():
            for journal in self._journals:
                journal.append(change)
            change(self.contents)

    def search(self, queries: Sequence[Vectors], top_k: int, where: Filter) -> list[list[Hit]]:
        """The best `top_k` entries for each query, best first; ties by entry id."""
        with self.lock.read():
            scores, rows = self.contents.nearest(np.concatenate(queries), top_k, self._allowed(where))
            ends = np.cumsum([len(query) for query in queries])[:-1]
            found = [
                _merged(score, row, top_k)
                for score, row in zip(np.split(scores, ends), np.split(rows, ends), strict=True)
            ]
            named = [(score, self.contents.columns.entries[row]) for score, row in found]
        return [_hits(score, entries) for score, entries in named]

    def search_reranked(self, query: Vectors, top_k: int, where: Filter, how: Reranking) -> list[Hit]:
        """The `top_k` entries that are nearest after re-ranking the best `how.candidates`; ties by score."""
        with self.lock.read():
            scores, rows = _merged(*self.contents.nearest(query, how.candidates, self._allowed(where)), how.candidates)
            vectors, entries = self.contents.vectors.vectors(rows), self.contents.columns.entries[rows].tolist()
        distances = k_reciprocal(scores, vectors, how)
        hits = [Hit(*hit) for hit in zip(entries, scores.tolist(), distances.tolist(), strict=True)]
        return sorted(hits, key=lambda hit: (hit.distance, -hit.score, hit.entry_id))[:top_k]

    def search_persons(self, query: Vectors, top_k: int, where: Filter, how: Grouping) -> list[PersonHit]:
        """The `top_k` persons with the greatest score, best first. `where` must let through none unnamed."""
        with self.lock.read():
            allowed = self._allowed(where)
            if how.by == "best":
                codes = self._persons_by_best(query, top_k, allowed)
            else:
                codes = self._persons_by_mean(query, top_k, allowed)
            of_person = np.flatnonzero(allowed & self.contents.columns.of_persons(codes))
            scores = self._scores(query, of_person)
            entries, persons = self.contents.columns.entries[of_person], self.contents.columns.persons[of_person]
            names = {code: self.contents.columns.person_name(code) for code in codes}
        hits = []
        for code, name in names.items():
            own = persons == code
            best_first = _hits(scores[own], entries[own])
            best, mean = best_first[0].score, float(scores[own].mean())
            score = best if how.by == "best" else mean
            hits.append(PersonHit(name, score, best, mean, len(best_first), tuple(best_first[: how.examples])))
        return sorted(hits, key=lambda hit: (-hit.score, hit.person_id))

    def _persons_by_best(self, query: Vectors, top_k: int, allowed: Mask) -> list[int]:
        """The nearest persons are those met first; look deeper until enough have been met."""
        total = int(np.count_nonzero(allowed))
        depth = 4 * top_k
        while total:
            depth = min(depth, total)
            scores, rows = self.contents.nearest(query, depth, allowed)
            # Below the last of any one vector's list, another's may lack entries that are better.
            complete = scores >= scores[:, -1].max()
            scores, rows = scores[complete], rows[complete]
            codes = list(
                dict.fromkeys(self.contents.columns.persons[rows[np.argsort(-scores, kind="stable")]].tolist())
            )
            if len(codes) >= top_k or depth == total:
                return codes[:top_k]
            depth *= 4
        return []

    def _persons_by_mean(self, query: Vectors, top_k: int, allowed: Mask) -> list[int]:
        rows = np.flatnonzero(allowed)
        codes, place = np.unique(self.contents.columns.persons[rows], return_inverse=True)
        mean = np.bincount(place, self._scores(query, rows), len(codes)) / np.bincount(place, minlength=len(codes))
        found: list[int] = codes[np.argsort(-mean, kind="stable")[:top_k]].tolist()
        return found

    def _scores(self, query: Vectors, rows: Rows) -> Vectors:
        """The score of each of these rows."""
        scores = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            scores[chunk] = (self.contents.vectors.vectors(rows[chunk]) @ query.T).max(1)
        return scores

    def _allowed(self, where: Filter) -> Mask:
        if self.retention is None:
            return self.contents.columns.allowed(where)
        return self.contents.columns.allowed(where, self._clock() - self.retention)


def _merged(scores: Vectors, rows: Rows, count: int) -> tuple[Vectors, Rows]:
    """The best `count` rows of the lists of several vectors, (n, k) each, and their greatest scores; best first.

    Whatever is among the best by its greatest score is in the list of the vector that gives it.
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
