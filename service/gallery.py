"""A gallery in memory: an index, what its rows mean, and the searches over both. A cache of what the database holds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.columns import Columns, Filter
from service.engine import Vectors
from service.index import FlatIndex, Rows
from service.locks import ReadWriteLock

_FEW = 64  # with so few rows shut out, searching a little deeper is cheaper than looking at a mask for each row
_COMPACT_AT = 0.2


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry and its cosine with the query."""

    entry_id: int
    score: float


@dataclass(frozen=True, slots=True)
class PersonHit:
    """A person: best and mean cosine over all of its entries that the filter lets through; the best as examples."""

    person_id: str
    best: float
    mean: float
    entries: int
    examples: tuple[Hit, ...]


class Gallery:
    """Searched by many threads; changed only by the database's writer thread, after the commit."""

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._index = FlatIndex(dim)
        self._columns = Columns()
        self._lock = ReadWriteLock()

    def __len__(self) -> int:
        return len(self._columns) - self._columns.dead

    def add(
        self, entries: Sequence[int], persons: Sequence[str | None], cameras: Sequence[str | None], vectors: Vectors
    ) -> None:
        """Make committed entries findable."""
        with self._lock.write():
            self._index.add(vectors)
            self._columns.append(entries, persons, cameras)

    def relabel(self, entry: int, person: str | None, camera: str | None) -> None:
        """Give an entry another person or camera."""
        with self._lock.write():
            self._columns.relabel(entry, person, camera)

    def remove(self, entries: Sequence[int]) -> None:
        """Make entries unfindable and wipe their vectors at once; their rows are dropped when enough have gathered."""
        with self._lock.write():
            self._index.wipe(self._columns.bury(entries))
        if self._columns.dead > max(_FEW, _COMPACT_AT * len(self._columns)):
            self._compact()

    def search(self, queries: Vectors, top_k: int, where: Filter) -> list[list[Hit]]:
        """The best `top_k` entries for each of (Q, D) unit queries, exactly, best first; ties by entry id."""
        with self._lock.read():
            scores, rows = self._search_rows(queries, top_k, where)
            found = [
                (score[row >= 0], self._columns.entries[row[row >= 0]]) for score, row in zip(scores, rows, strict=True)
            ]
        return [_hits(score, entries) for score, entries in found]

    def search_persons(self, query: Vectors, top_k: int, where: Filter, examples: int) -> list[PersonHit]:
        """The `top_k` persons whose best entry is nearest to a (D,) unit query, exactly, best first."""
        with self._lock.read():
            allowed = self._columns.allowed(where)
            total = int(allowed.sum())
            codes: list[int] = []
            depth = 4 * top_k
            while total:  # the nearest persons are those met first; look deeper until enough have been met
                depth = min(depth, total)
                _, rows = self._index.search(query[None], depth, allowed)
                codes = list(dict.fromkeys(self._columns.persons[rows[0]].tolist()))[:top_k]
                if len(codes) == top_k or depth == total:
                    break
                depth *= 4
            of_person = np.flatnonzero(allowed & np.isin(self._columns.persons, codes))
            scores = self._index.vectors(of_person) @ query if len(of_person) else np.zeros(0, np.float32)
            entries, persons = self._columns.entries[of_person], self._columns.persons[of_person]
            names = {code: self._columns.person_name(code) for code in codes}
        hits = []
        for code, name in names.items():
            own = persons == code
            best_first = _hits(scores[own], entries[own])
            hits.append(
                PersonHit(
                    name, best_first[0].score, float(scores[own].mean()), len(best_first), tuple(best_first[:examples])
                )
            )
        return sorted(hits, key=lambda hit: (-hit.best, hit.person_id))

    def _search_rows(self, queries: Vectors, top_k: int, where: Filter) -> tuple[Vectors, Rows]:
        allowed = self._columns.allowed(where)
        total = int(allowed.sum())
        shut_out = len(allowed) - total
        top_k = min(top_k, total)
        if top_k == 0:
            return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
        if shut_out > _FEW:
            return self._index.search(queries, top_k, allowed)
        scores, rows = self._index.search(queries, top_k + shut_out, None)
        if shut_out:
            kept = np.argsort(~allowed[rows], axis=1, kind="stable")[:, :top_k]
            scores, rows = np.take_along_axis(scores, kept, axis=1), np.take_along_axis(rows, kept, axis=1)
        return scores, rows

    def _compact(self) -> None:
        # Only this thread changes the index, so reading it needs no lock; searches go on until the exchange.
        columns, rows = self._columns.compacted()
        index = FlatIndex(self._dim)
        for start in range(0, len(rows), 4096):
            index.add(self._index.vectors(rows[start : start + 4096]))
        with self._lock.write():
            self._index, self._columns = index, columns


def _hits(scores: Vectors, entries: Rows) -> list[Hit]:
    order = np.lexsort((entries, -scores))
    return [Hit(entry, score) for entry, score in zip(entries[order].tolist(), scores[order].tolist(), strict=True)]
