"""The reference model of the service: every search is a loop over all entries in float64."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
TOLERANCE = 1e-5  # of a cosine of float32 vectors


@dataclass(slots=True)
class Entry:
    """An enrolled crop."""

    vector: Vector
    person_id: str | None = None
    camera_id: str | None = None
    captured_at: datetime | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    pictured: bool = False
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(slots=True)
class Gallery:
    """A gallery according to the responses to its clients."""

    fingerprint: str
    purpose: str = ""
    index: str = "auto"
    retention_days: float | None = None
    keep_crops: bool = False
    entries: dict[int | str, Entry] = field(default_factory=dict)
    expired_ids: set[int | str] = field(default_factory=set)  # not searched; listed until they are erased

    def expired(self, entry: Entry) -> bool:
        """True if retention excludes an entry from searches."""
        if self.retention_days is None:
            return False
        since = min(entry.created_at, entry.captured_at or entry.created_at)
        try:
            return since + timedelta(days=self.retention_days) <= datetime.now(UTC)
        except OverflowError:
            return False

    def drop_expired(self) -> None:
        """Remove the entries that retention excludes."""
        gone = {entry_id for entry_id, entry in self.entries.items() if self.expired(entry)}
        self.expired_ids |= gone
        self.entries = {entry_id: entry for entry_id, entry in self.entries.items() if entry_id not in gone}


@dataclass(frozen=True, slots=True)
class Query:
    """The vector and the filter of a search."""

    vector: Vector = field(repr=False)
    cameras: frozenset[str] | None = None
    persons: frozenset[str] | None = None
    exclude_persons: frozenset[str] = frozenset()
    captured_from: datetime | None = None
    captured_until: datetime | None = None
    attributes: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    exclude_entries: frozenset[int | str] = frozenset()

    def admits(self, entry_id: int | str, entry: Entry) -> bool:
        """True if an entry passes every filter. An unknown value matches no name."""
        if entry_id in self.exclude_entries:
            return False
        if self.cameras is not None and entry.camera_id not in self.cameras:
            return False
        if self.persons is not None and entry.person_id not in self.persons:
            return False
        if entry.person_id is not None and entry.person_id in self.exclude_persons:
            return False
        at = entry.captured_at
        if self.captured_from is not None and (at is None or at < self.captured_from):
            return False
        if self.captured_until is not None and (at is None or at >= self.captured_until):
            return False
        return all(
            name in entry.attributes and any(alike(entry.attributes[name], one) for one in wanted)
            for name, wanted in self.attributes
        )


def alike(a: Any, b: Any) -> bool:
    """Equality of attribute values: 1 equals 1.0, true does not equal 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b
    return type(a) is type(b) and bool(a == b)


def scores(gallery: Gallery, query: Query) -> dict[int | str, float]:
    """The cosine of every entry that passes the filter."""
    return {
        entry_id: float(entry.vector @ query.vector)
        for entry_id, entry in gallery.entries.items()
        if query.admits(entry_id, entry)
    }


def ranking_faults(
    found: list[tuple[int | str, float]], expected: dict[Any, float], top_k: int, missing: int = 0
) -> list[str]:
    """Errors in ranked ids and scores. Ids with equal scores up to rounding may be in any order.

    `missing`: how many of the best may not be found, where the index is approximate.
    """
    faults = []
    if len(found) != min(top_k, len(expected)):
        faults.append(f"{len(found)} hits, expected {min(top_k, len(expected))} of {len(expected)}")
    if len({name for name, _ in found}) != len(found):
        faults.append("a hit stands twice")
    for name, score in found:
        if name not in expected:
            faults.append(f"{name!r} may not answer")
        elif abs(expected[name] - score) > TOLERANCE:
            faults.append(f"{name!r} scores {score}, expected {expected[name]}")
    best = sorted(expected.values(), reverse=True)[: len(found)]
    if found and sum(score < best[-1] - 2 * TOLERANCE for _, score in found) > missing:
        faults.append(f"the hits {found} are not the best, {best}")
    if any(later > score + 2 * TOLERANCE for (_, score), (_, later) in pairwise(found)):
        faults.append(f"the hits are not in the order of their scores: {found}")
    return faults


def persons(gallery: Gallery) -> dict[str, tuple[int, int]]:
    """Entries and distinct cameras of each person."""
    found: dict[str, list[Entry]] = {}
    for entry in gallery.entries.values():
        if entry.person_id is not None:
            found.setdefault(entry.person_id, []).append(entry)
    return {
        name: (len(entries), len({entry.camera_id for entry in entries} - {None})) for name, entries in found.items()
    }


def best_by_person(gallery: Gallery, query: Query) -> dict[str, tuple[float, float, int]]:
    """Best score, mean score and number of entries of each person that passes the filter."""
    grouped: dict[str, list[float]] = {}
    for entry_id, score in scores(gallery, query).items():
        name = gallery.entries[entry_id].person_id
        if name is not None:
            grouped.setdefault(name, []).append(score)
    return {name: (max(each), sum(each) / len(each), len(each)) for name, each in grouped.items()}


def same_attributes(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Equality of members and their types. JSON does not distinguish 1.0 from 1."""
    return a.keys() == b.keys() and all(alike(a[name], b[name]) for name in a)


def parse_time(text: Any) -> datetime | None:
    """A time in UTC; None if datetime cannot represent it."""
    try:
        moment = datetime.fromisoformat(text.upper())  # RFC 3339 also allows t and z
        return moment.astimezone(UTC) if moment.tzinfo is not None else None
    except (AttributeError, ValueError, OverflowError):
        return None


def copy_of(gallery: Gallery, ids: Iterable[int | str]) -> Gallery:
    """The same gallery with other entry ids in the same order."""
    return Gallery(
        gallery.fingerprint,
        gallery.purpose,
        "auto",
        gallery.retention_days,
        gallery.keep_crops,
        {entry_id: replace(entry) for entry_id, entry in zip(ids, gallery.entries.values(), strict=True)},
    )
