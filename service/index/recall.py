"""Measures the recall of an approximate index with rows that it does not hold.

Two sets of rows are held out of every index: a sample of all rows, and one of the newest. Each search scores them
exactly. As queries they resemble new images, because neither the centroids nor the links of a graph were built from
them. One exact search over all vectors gives their nearest rows; the recall is the share of these that the index
proposes.

Shapes: Q queries, D dimensions of a vector.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core.types import Mask, Rows, Vectors
from service.index.ann import AnnIndex, Measurement
from service.index.reader import SegmentReader

# By number of neighbours: a search parameter is raised until the recall reaches the goal. Below the target, of all rows
# or of the newest, searches are exact.
RECALL_GOALS = {10: 0.996, 100: 0.98, 1000: 0.97}
RECALL_TARGETS = {10: 0.98, 100: 0.96, 1000: 0.95}
_QUERIES = 128  # rows of all ages; the standard error of a recall near the target is then about 0.004
_NEWEST_QUERIES = 64

Recalls = npt.NDArray[np.float64]  # (Q,)


@dataclass(frozen=True, slots=True)
class Probes:
    """(Q,) ascending held-out rows, a (Q,) mask of the newest, and the number of first rows that they represent."""

    rows: Rows
    newest: Mask
    covered: int


def choose_probes(reader: SegmentReader, index: AnnIndex | None, newest_from: int) -> Probes:
    """Choose live rows that the index does not hold. Rows from `newest_from` on count as newest.

    Takes the rows with the smallest hash of their entry id. This sample is stable while entries come and go, so no row
    has to leave the index; other rows replace deleted ones.
    """
    with reader.lock.read():
        metadata = reader.segment.metadata
        covered = len(metadata)
        free = metadata.live.copy()
        order = _hashes(metadata.entries)
    if index is not None:
        free &= ~index.holds(covered)
    rows = np.flatnonzero(free)
    rows = rows[np.argsort(order[rows], kind="stable")]
    of_all, others = rows[:_QUERIES], rows[_QUERIES:]
    newest = others[others >= newest_from][:_NEWEST_QUERIES]
    chosen = np.sort(np.concatenate([of_all, newest]))
    return Probes(chosen, np.isin(chosen, newest), covered)


def add_missing(reader: SegmentReader, index: AnnIndex, probes: Probes, attached: bool) -> None:
    """Add the covered live rows that the index lacks, without the held-out ones.

    `attached`: searches use the index already, so rows are added under the write lock.
    """
    missing = reader.live(probes.covered) & ~index.holds(probes.covered)
    missing[probes.rows] = False
    rows = np.flatnonzero(missing)
    size = index.add_batch_size
    for start, vectors in zip(range(0, len(rows), size), reader.vectors(rows, size), strict=True):
        batch = rows[start : start + size]
        append = index.prepare(batch, vectors)
        if not attached:
            append()
            continue
        with reader.lock.write():
            append()
            index.wipe(batch[~reader.segment.metadata.live[batch]])


def measure(reader: SegmentReader, index: AnnIndex, probes: Probes, at: int) -> Measurement:
    """Find the smallest sufficient search parameter of each depth, and the recall that it gives.

    `at` is the time, in microseconds since 1970.
    """
    live = np.flatnonzero(reader.live(probes.covered))
    with reader.lock.read():
        queries = reader.segment.exact.vectors(probes.rows)
        deleted_count = reader.segment.metadata.deleted_count
    truth = _without_self(reader.search(queries, live, min(max(RECALL_GOALS), len(live) // 4) + 1), probes.rows)

    def recalls(depth: int, param: int) -> Recalls:
        each = zip(queries[:, None], probes.rows, truth[:, :depth], strict=True)
        return np.array([_recall(reader, index, probes, *one, param) for one in each])

    search_params: dict[int, int] = {}
    first_recalls = np.zeros(len(queries))  # of the smallest depth
    param = index.search_params[0]
    for depth, goal in RECALL_GOALS.items():
        if depth > truth.shape[1]:
            break
        by_param: dict[int, Recalls] = {}

        def suffices(
            param: int, depth: int = depth, goal: float = goal, by_param: dict[int, Recalls] = by_param
        ) -> bool:
            by_param[param] = recalls(depth, param)
            overall, newest = _means(by_param[param], probes.newest)
            return overall >= goal and newest >= RECALL_TARGETS[depth]

        start = max(param, index.initial_params.get(depth, param))
        param = _smallest([one for one in index.search_params if one >= start], suffices)
        first_recalls = first_recalls if search_params else by_param[param]
        if min(_means(by_param[param], probes.newest)) < RECALL_TARGETS[depth]:
            break
        search_params[depth] = param
    overall, newest = _means(first_recalls, probes.newest)
    count = int(probes.newest.sum())
    return Measurement(
        rows=probes.covered,
        held_out=probes.rows,
        search_params=search_params,
        recall=overall,
        recall_recent=newest,
        queries=len(queries) - count,
        queries_recent=count,
        at=at,
        deleted_count=deleted_count,
    )


def _smallest(params: Sequence[int], suffices: Callable[[int], bool]) -> int:
    """The first of the ascending parameters that suffices, or the last one, by galloping and then binary search."""
    low, high, stride = -1, 0, 1  # low does not suffice; high is to be tested
    while not suffices(params[high]):
        if high == len(params) - 1:
            return params[high]
        low, high, stride = high, min(high + stride, len(params) - 1), 2 * stride
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(params[middle]) else (middle, high)
    return params[high]


def _recall(
    reader: SegmentReader, index: AnnIndex, probes: Probes, query: Vectors, own: int, nearest: Rows, param: int
) -> float:
    """The share of the (n,) nearest rows of a (1, D) query that the index finds. Rows with equal scores count as found.

    It runs one query at a time, so that no change waits longer than for a search.
    """
    reader.check()
    with reader.lock.read():
        live = reader.segment.metadata.live
        nearest = nearest[live[nearest]]
        rows = index.propose(query, len(nearest) + 1, param, probes.covered, probes.rows)
        rows = np.hstack([rows, probes.rows[None]])
        rows[~live[rows] | (rows == own)] = -1
        scores = reader.segment.exact.scores(query, np.hstack([rows, nearest[None]]))[0]
    proposed, true = np.sort(scores[: rows.shape[1]])[::-1], scores[rows.shape[1] :]
    if not len(true):
        return 1.0
    return float(np.mean(proposed[: len(true)] >= true.min()))


def _means(recalls: Recalls, newest: Mask) -> tuple[float, float]:
    """The mean recall of the sample of all rows, and of the newest. An empty sample gets the mean of the other."""
    if not len(recalls):
        return 0.0, 0.0
    overall, recent = (recalls[group] if group.any() else recalls for group in (~newest, newest))
    return float(overall.mean()), float(recent.mean())


def _without_self(rows: Rows, own: Rows) -> Rows:
    """(Q, n) rows without the query's own row, or without the last one if it is missing: (Q, n - 1)."""
    is_own = rows == own[:, None]
    is_own[~is_own.any(axis=1), -1] = True
    left: Rows = rows[~is_own].reshape(len(rows), rows.shape[1] - 1)
    return left


def _hashes(entries: Rows) -> npt.NDArray[np.uint64]:
    """(n,) uint64 hashes of entry ids, the same in every process (the finaliser of SplitMix64)."""
    mixed = entries.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
