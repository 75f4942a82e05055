"""What the rows of an index are: entry, person, camera, time and attributes of each, and whether it is still there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core.models import EntryMetadata, since
from service.core.types import Mask, Rows
from service.index.columns import UNKNOWN, AttributeHashes, DictionaryColumn, GrowableArray

_NEVER = np.iinfo(np.int64).min  # the time of a row without one
_ALWAYS = np.iinfo(np.int64).max  # a row that is dead does not age


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries may answer. A camera, person or time that is not known is never the one that is named.

    captured_from and captured_until are microseconds, UTC, the former included and the latter not. attributes: of each
    of these sets of `tag`s an entry has at least one. exclude_persons_at_cameras: none of such a person from such a
    camera (the evaluation rule of re-identification). named: only with a person.
    """

    cameras: frozenset[str] | None = None
    exclude_cameras: frozenset[str] = frozenset()
    persons: frozenset[str] | None = None
    exclude_persons: frozenset[str] = frozenset()
    captured_from: int | None = None
    captured_until: int | None = None
    attributes: frozenset[frozenset[bytes]] = frozenset()
    exclude_persons_at_cameras: frozenset[tuple[str, str]] = frozenset()
    exclude_entries: frozenset[int] = frozenset()
    named: bool = False


class MetadataTable:
    """One value a row and column."""

    def __init__(self) -> None:
        self._entries = GrowableArray(np.int64)
        self._persons = DictionaryColumn()
        self._cameras = DictionaryColumn()
        self._captured = GrowableArray(np.int64)
        self._tags = AttributeHashes()
        self._since = GrowableArray(np.int64)
        self._alive = GrowableArray(np.bool_)
        self._oldest = _ALWAYS  # of those that are alive, so that most searches need not look at their ages
        self.dead = 0
        self.last = 0  # the greatest entry id there ever was, also where its row is gone

    def __len__(self) -> int:
        return len(self._alive)

    @property
    def entries(self) -> Rows:
        """The entry id of each row, ascending."""
        return self._entries.values

    @property
    def persons(self) -> npt.NDArray[np.int32]:
        """The person code of each row, -1 where unknown."""
        return self._persons.codes

    @property
    def distinct_persons(self) -> int:
        """The number of persons who have an entry that is alive."""
        return self._persons.distinct

    @property
    def alive(self) -> Mask:
        """A boolean for each row: whether its entry is still there."""
        return self._alive.values

    def of_persons(self, codes: Sequence[int]) -> Mask:
        """A boolean for each row: whether its person has one of these codes."""
        return self._persons.having(codes)

    def person_name(self, code: int) -> str:
        """The person_id behind a code."""
        name = self._persons.name(code)
        assert name is not None
        return name

    def append(self, entries: Sequence[int], known: Sequence[EntryMetadata]) -> None:
        """Add rows; entry ids must be over all earlier ones."""
        self.append_columns(
            entries,
            [one.person_id for one in known],
            [one.camera_id for one in known],
            [one.captured_at for one in known],
            [one.attributes for one in known],
            [since(one) for one in known],
        )

    def append_columns(
        self,
        entries: Sequence[int],
        persons: Sequence[str | None],
        cameras: Sequence[str | None],
        captured: Sequence[int | None],
        attributes: Sequence[str],
        since: Sequence[int],
    ) -> None:
        """As `append`, of many rows."""
        first = len(self)
        self._entries.append(entries)
        self.last = max(self.last, entries[-1] if len(entries) else 0)
        self._persons.append(persons)
        self._cameras.append(cameras)
        self._captured.append([_NEVER if time is None else time for time in captured])
        self._tags.append(attributes)
        self._since.append(since)
        self._alive.append([True] * len(entries))
        self._age(slice(first, None))

    def update_metadata(self, entry: int, known: EntryMetadata) -> None:
        """Replace what is known of an entry, where it is alive."""
        rows = self._alive_rows([entry])
        self._persons.rename(rows, known.person_id)
        self._cameras.rename(rows, known.camera_id)
        self._captured.values[rows] = _time(known)
        self._since.values[rows] = since(known)
        self._age(rows)
        self._tags.replace(rows, known.attributes)

    def mark_deleted(self, entries: Sequence[int]) -> Rows:
        """Mark entries as deleted: they answer no search from here on. Drops the name of a person or camera with their
        last entry. Returns the rows of those entries that were alive.
        """
        rows = self._alive_rows(entries)
        oldest = int(self._since.values[rows].min(initial=_ALWAYS))
        self.dead += len(rows)
        self._alive.values[rows] = False
        self._captured.values[rows] = _NEVER
        self._since.values[rows] = _ALWAYS
        if oldest <= self._oldest:
            self._oldest = int(self._since.values.min(initial=_ALWAYS))
        self._tags.wipe(rows)
        self._persons.release(rows)
        self._cameras.release(rows)
        return rows

    def _alive_rows(self, entries: Sequence[int]) -> Rows:
        """The rows of those of these entries that are alive, each once."""
        rows = np.unique(self.rows_of(entries))
        alive: Rows = rows[self._alive.values[rows]]
        return alive

    def rows_of(self, entries: Sequence[int]) -> Rows:
        """The rows of those of these entries that are known."""
        wanted = np.asarray(entries, np.int64)
        rows = np.searchsorted(self.entries, wanted)
        inside = rows < len(self)
        found: Rows = rows[inside][self.entries[rows[inside]] == wanted[inside]]
        return found

    def allowed(self, where: Filter, expired: int = _NEVER) -> Mask:
        """A boolean for each row: alive, let through by the filter, and aging from after `expired` (microseconds)."""
        mask: Mask = self._alive.values.copy()
        if self._oldest <= expired:
            mask &= self._since.values > expired
        if where.cameras is not None:
            mask &= self._cameras.isin(where.cameras)
        if where.exclude_cameras:
            mask &= ~self._cameras.isin(where.exclude_cameras)
        if where.persons is not None:
            mask &= self._persons.isin(where.persons)
        if where.exclude_persons:
            mask &= ~self._persons.isin(where.exclude_persons)
        captured = self._captured.values
        if where.captured_from is not None:
            mask &= captured >= where.captured_from
        if where.captured_until is not None:
            mask &= (captured < where.captured_until) & (captured != _NEVER)
        for alternatives in where.attributes:
            carrying = np.zeros(len(self), np.bool_)
            carrying[self._tags.rows_with(alternatives)] = True
            mask &= carrying
        for person, camera in where.exclude_persons_at_cameras:
            mask &= ~(self._persons.isin([person]) & self._cameras.isin([camera]))
        if where.exclude_entries:
            mask[self.rows_of(sorted(where.exclude_entries))] = False
        if where.named:
            mask &= self.persons != UNKNOWN
        return mask

    def compacted(self) -> tuple["MetadataTable", Rows]:
        """A copy without the dead, and the rows it was made of."""
        rows: Rows = np.flatnonzero(self._alive.values)
        copy = MetadataTable()
        copy._entries.append(self.entries[rows])
        copy._persons, copy._cameras = self._persons.taken(rows), self._cameras.taken(rows)
        copy._captured.append(self._captured.values[rows])
        copy._tags = self._tags.taken(rows)
        copy._since.append(self._since.values[rows])
        copy._oldest = self._oldest
        copy.last = self.last
        copy._alive.append(self._alive.values[rows])
        return copy, rows

    def _age(self, rows: Rows | slice) -> None:
        self._oldest = int(self._since.values[rows].min(initial=self._oldest))


def _time(known: EntryMetadata) -> int:
    return _NEVER if known.captured_at is None else known.captured_at
