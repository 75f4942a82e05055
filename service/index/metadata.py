"""Metadata of the rows of a gallery: entry, person, camera, time, attributes, deletion. N is the number of rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.core.models import EntryMetadata, since
from service.core.types import Mask, Rows
from service.index.attributes import AttributeHashes
from service.index.columns import NO_VALUE, DictionaryColumn, GrowableArray

_NO_TIME = np.iinfo(np.int64).min
_NOT_AGING = np.iinfo(np.int64).max  # of a deleted row


@dataclass(frozen=True, slots=True)
class Filter:
    """The entries that a search may return. An unknown person, camera or time matches no value.

    captured_from, captured_until: microseconds since 1970 in UTC; the start is inclusive, the end exclusive.
    attributes: sets of `attribute_key`s; an entry must have at least one of each set.
    exclude_persons_at_cameras: pairs of person and camera (the evaluation rule of re-identification).
    has_person: only entries with a person.
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
    has_person: bool = False


class MetadataTable:
    """A column for each property of an entry. A row number is an index into all of them."""

    def __init__(self) -> None:
        self._entries = GrowableArray(np.int64)
        self._persons = DictionaryColumn()
        self._cameras = DictionaryColumn()
        self._captured = GrowableArray(np.int64)
        self._attributes = AttributeHashes()
        self._since = GrowableArray(np.int64)
        self._live = GrowableArray(np.bool_)
        self._oldest = _NOT_AGING  # of live rows; most searches need not compare ages
        self.deleted_count = 0
        self.last = 0  # the largest entry id ever added, even if its row is gone

    def __len__(self) -> int:
        return len(self._live)

    @property
    def entries(self) -> Rows:
        """(N,) int64: the entry id of each row, ascending."""
        return self._entries.values

    @property
    def persons(self) -> npt.NDArray[np.int32]:
        """(N,) int32: the person code of each row, -1 if unknown."""
        return self._persons.codes

    @property
    def distinct_persons(self) -> int:
        """The number of persons with a live entry."""
        return self._persons.distinct

    @property
    def live(self) -> Mask:
        """(N,) booleans: False for deleted rows."""
        return self._live.values

    def of_persons(self, codes: Sequence[int]) -> Mask:
        """(N,) booleans: whether the person of the row has one of these codes."""
        return self._persons.has_code(codes)

    def person_name(self, code: int) -> str:
        """The person_id of a code."""
        name = self._persons.name(code)
        assert name is not None
        return name

    def append(self, entries: Sequence[int], metadata: Sequence[EntryMetadata]) -> None:
        """Add rows. Entry ids ascend, from above all earlier ones."""
        self.append_columns(
            entries,
            [one.person_id for one in metadata],
            [one.camera_id for one in metadata],
            [one.captured_at for one in metadata],
            [one.attributes for one in metadata],
            [since(one) for one in metadata],
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
        """As `append`, from one sequence per column. `captured` and `since` are in microseconds."""
        first = len(self)
        self._entries.append(entries)
        self.last = max(self.last, entries[-1] if len(entries) else 0)
        self._persons.append(persons)
        self._cameras.append(cameras)
        self._captured.append([_NO_TIME if time is None else time for time in captured])
        self._attributes.append(attributes)
        self._since.append(since)
        self._live.append([True] * len(entries))
        self._update_oldest(slice(first, None))

    def update_metadata(self, entry: int, metadata: EntryMetadata) -> None:
        """Replace the metadata of a live entry."""
        rows = self._live_rows([entry])
        self._persons.rename(rows, metadata.person_id)
        self._cameras.rename(rows, metadata.camera_id)
        self._captured.values[rows] = _time(metadata)
        self._since.values[rows] = since(metadata)
        self._update_oldest(rows)
        self._attributes.replace(rows, metadata.attributes)

    def mark_deleted(self, entries: Sequence[int]) -> Rows:
        """Mark entries as deleted, and wipe their metadata. Drops a person's or camera's name with its last entry.

        Returns the (n,) rows that were live.
        """
        rows = self._live_rows(entries)
        oldest = int(self._since.values[rows].min(initial=_NOT_AGING))
        self.deleted_count += len(rows)
        self._live.values[rows] = False
        self._captured.values[rows] = _NO_TIME
        self._since.values[rows] = _NOT_AGING
        if oldest <= self._oldest:
            self._oldest = int(self._since.values.min(initial=_NOT_AGING))
        self._attributes.wipe(rows)
        self._persons.release(rows)
        self._cameras.release(rows)
        return rows

    def _live_rows(self, entries: Sequence[int]) -> Rows:
        """(n,) distinct rows of the live ones of these entries."""
        rows = np.unique(self.rows_of(entries))
        live: Rows = rows[self._live.values[rows]]
        return live

    def rows_of(self, entries: Sequence[int]) -> Rows:
        """(n,) rows of these entries, without those that have none."""
        wanted = np.asarray(entries, np.int64)
        rows = np.searchsorted(self.entries, wanted)
        inside = rows < len(self)
        found: Rows = rows[inside][self.entries[rows[inside]] == wanted[inside]]
        return found

    def allowed(self, where: Filter, expired: int = _NO_TIME) -> Mask:
        """(N,) booleans: the row is live, passes the filter, and its age starts after `expired` (microseconds)."""
        mask: Mask = self._live.values.copy()
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
            mask &= (captured < where.captured_until) & (captured != _NO_TIME)
        for alternatives in where.attributes:
            matching = np.zeros(len(self), np.bool_)
            matching[self._attributes.rows_with(alternatives)] = True
            mask &= matching
        for person, camera in where.exclude_persons_at_cameras:
            mask &= ~(self._persons.isin([person]) & self._cameras.isin([camera]))
        if where.exclude_entries:
            mask[self.rows_of(sorted(where.exclude_entries))] = False
        if where.has_person:
            mask &= self.persons != NO_VALUE
        return mask

    def compacted(self) -> tuple["MetadataTable", Rows]:
        """A copy of the live rows, and their (n,) row numbers here."""
        rows: Rows = np.flatnonzero(self._live.values)
        copy = MetadataTable()
        copy._entries.append(self.entries[rows])
        copy._persons, copy._cameras = self._persons.take(rows), self._cameras.take(rows)
        copy._captured.append(self._captured.values[rows])
        copy._attributes = self._attributes.take(rows)
        copy._since.append(self._since.values[rows])
        copy._oldest = self._oldest
        copy.last = self.last
        copy._live.append(self._live.values[rows])
        return copy, rows

    def _update_oldest(self, rows: Rows | slice) -> None:
        self._oldest = int(self._since.values[rows].min(initial=self._oldest))


def _time(metadata: EntryMetadata) -> int:
    return _NO_TIME if metadata.captured_at is None else metadata.captured_at
