"""Measures what an approximate index finds, by entries that it does not hold.

Some entries are held out of every index: a sample of all, and one of the newest. Each search scores them exactly. As
queries they are what new pictures are: neither the centroids nor the links of a graph were made with them. Their
nearest entries by exact search, in one pass over all vectors, are compared with those that the index proposes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

from service.core.types import Mask, Rows, Vectors
from service.index.ann import Approximate, Measurement
from service.index.exact import best
from service.index.rwlock import ReadWriteLock
from service.index.segment import Segment

AIM = {10: 0.996, 100: 0.98, 1000: 0.97}  # the recall that efforts are raised for, by the number of neighbours
TARGET = {10: 0.98, 100: 0.96, 1000: 0.95}  # below this, of all entries or of the newest, searches are exact
_QUERIES = 128  # of entries of all ages; the standard error of a recall near the target is then some 0.004
_NEWEST = 64  # queries more, of the newest entries
_CHUNK = 1024  # rows that are read at a time
_COMPARED = 8192  # rows that are compared at a time

Figures = npt.NDArray[np.float64]


class Reader:
    """Reads the contents of a gallery that others change meanwhile, under its lock for moments only."""

    def __init__(self, contents: Segment, lock: ReadWriteLock, check: Callable[[], None]) -> None:
        """`check` is called between reads, and raises where the work shall end."""
        self.contents = contents
        self.lock = lock
        self.check = check

    def alive(self, count: int | None = None) -> Mask:
        """Which of the first `count` rows, or of all, are alive now."""
        with self.lock.read():
            return self.contents.columns.alive[:count].copy()

    def vectors(self, rows: Rows, chunk: int = _CHUNK) -> Iterator[Vectors]:
        """The (n, D) vectors of these rows, in parts."""
        for start in range(0, len(rows), chunk):
            self.check()
            with self.lock.read():
                vectors = self.contents.vectors.vectors(rows[start : start + chunk])
            yield vectors

    def nearest(self, queries: Vectors, rows: Rows, count: int) -> Rows:
        """(Q, n) the best of these rows for each of (Q, D) queries, best first; n is `count`, or all."""
        scores, found = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        for start in range(0, len(rows), _COMPARED):
            some = rows[start : start + _COMPARED]
            vectors = np.concatenate(list(self.vectors(some)))
            more, places = faiss.knn(queries, vectors, min(count, len(some)), faiss.METRIC_INNER_PRODUCT)
            scores, found = best(np.hstack([scores, more]), np.hstack([found, some[places]]), count)
        return found


@dataclass(frozen=True, slots=True)
class Probes:
    """The rows that are held out, (Q,), ascending; which of them count as the newest; and of how many first rows."""

    rows: Rows
    newest: Mask
    covered: int


def choose_probes(reader: Reader, approximate: Approximate | None, newest_from: int) -> Probes:
    """Rows to hold out: of all that are alive and that the index does not hold, and of those from `newest_from` on.

    Those with the least hash of their entry id: a sample that stays while entries come and go, so an index need not
    lose any. In place of those that are gone, new ones follow.
    """
    with reader.lock.read():
        columns = reader.contents.columns
        covered = len(columns)
        free = columns.alive.copy()
        order = _hashes(columns.entries)
    if approximate is not None:
        free &= ~approximate.holds(covered)
    rows = np.flatnonzero(free)
    rows = rows[np.argsort(order[rows], kind="stable")]
    of_all, others = rows[:_QUERIES], rows[_QUERIES:]
    newest = others[others >= newest_from][:_NEWEST]
    chosen = np.sort(np.concatenate([of_all, newest]))
    return Probes(chosen, np.isin(chosen, newest), covered)


def fill(reader: Reader, approximate: Approximate, probes: Probes, attached: bool) -> None:
    """Add what is alive of the first rows, without the held-out ones; where searches use the index, under the lock."""
    wanted = reader.alive(probes.covered) & ~approximate.holds(probes.covered)
    wanted[probes.rows] = False
    rows = np.flatnonzero(wanted)
    size = approximate.quickly_added
    for start, vectors in zip(range(0, len(rows), size), reader.vectors(rows, size), strict=True):
        some = rows[start : start + size]
        append = approximate.prepare(some, vectors)
        if not attached:
            append()
            continue
        with reader.lock.write():
            append()
            approximate.wipe(some[~reader.contents.columns.alive[some]])


def measure(reader: Reader, approximate: Approximate, probes: Probes, at: int) -> Measurement:
    """Find the least efforts that find enough, and what they find. `at`: now, in microseconds since 1970."""
    alive = np.flatnonzero(reader.alive(probes.covered))
    with reader.lock.read():
        queries = reader.contents.vectors.vectors(probes.rows)
        dead = reader.contents.columns.dead
    truth = _without(reader.nearest(queries, alive, min(max(AIM), len(alive) // 4) + 1), probes.rows)

    def found(depth: int, effort: int) -> Figures:
        each = zip(queries[:, None], probes.rows, truth[:, :depth], strict=True)
        return np.array([_share_found(reader, approximate, probes, *one, effort) for one in each])

    efforts: dict[int, int] = {}
    figures = np.zeros(len(queries))
    effort = approximate.efforts[0]
    for depth, aim in AIM.items():
        if depth > truth.shape[1]:
            break
        seen: dict[int, Figures] = {}

        def enough(effort: int, depth: int = depth, aim: float = aim, seen: dict[int, Figures] = seen) -> bool:
            seen[effort] = found(depth, effort)
            overall, newest = _of_groups(seen[effort], probes.newest)
            return overall >= aim and newest >= TARGET[depth]

        first = max(effort, approximate.first_efforts.get(depth, effort))
        effort = _least([step for step in approximate.efforts if step >= first], enough)
        figures = figures if efforts else seen[effort]
        if min(_of_groups(seen[effort], probes.newest)) < TARGET[depth]:
            break
        efforts[depth] = effort
    overall, newest = _of_groups(figures, probes.newest)
    count = int(probes.newest.sum())
    return Measurement(probes.covered, probes.rows, efforts, overall, newest, len(queries) - count, count, at, dead)


def _least(steps: Sequence[int], enough: Callable[[int], bool]) -> int:
    """The first of these ascending steps that is enough, or the last: by longer and longer strides, then by halving."""
    low, high, stride = -1, 0, 1  # what is not enough, and what may be
    while not enough(steps[high]):
        if high == len(steps) - 1:
            return steps[high]
        low, high, stride = high, min(high + stride, len(steps) - 1), 2 * stride
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(steps[middle]) else (middle, high)
    return steps[high]


def _share_found(
    reader: Reader, approximate: Approximate, probes: Probes, query: Vectors, own: int, nearest: Rows, effort: int
) -> float:
    """Of its (n,) nearest rows a (1, D) query's index finds this share; one as near as the last of them counts too.

    One query at a time, so that no change waits longer than for a search.
    """
    reader.check()
    with reader.lock.read():
        alive = reader.contents.columns.alive
        nearest = nearest[alive[nearest]]
        rows = approximate.propose(query, len(nearest) + 1, effort, probes.covered, probes.rows)
        rows = np.hstack([rows, probes.rows[None]])
        rows[~alive[rows] | (rows == own)] = -1
        scores = reader.contents.vectors.scores(query, np.hstack([rows, nearest[None]]))[0]
    proposed, true = np.sort(scores[: rows.shape[1]])[::-1], scores[rows.shape[1] :]
    if not len(true):
        return 1.0
    return float(np.mean(proposed[: len(true)] >= true.min()))


def _of_groups(each: Figures, newest: Mask) -> tuple[float, float]:
    """The mean of the sample of all and of the newest; that of both where one of them is empty, 0 where both are."""
    if not len(each):
        return 0.0, 0.0
    overall, recent = (each[group] if group.any() else each for group in (~newest, newest))
    return float(overall.mean()), float(recent.mean())


def _without(rows: Rows, own: Rows) -> Rows:
    """(Q, n) rows without each query's own, (Q, n - 1); where that is not among them, without the last."""
    is_own = rows == own[:, None]
    is_own[~is_own.any(axis=1), -1] = True
    left: Rows = rows[~is_own].reshape(len(rows), rows.shape[1] - 1)
    return left


def _hashes(entries: Rows) -> npt.NDArray[np.uint64]:
    """A number for each entry id that looks random, and is the same in every process (the finaliser of SplitMix64)."""
    mixed = entries.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
