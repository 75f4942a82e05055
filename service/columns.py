"""What the rows of an index are: entry, person and camera of each, and whether it is still there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from service.index import Mask, Rows

_UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries may answer. A camera or person that is not known is never the one that is named.

    cameras: only entries of these; exclude_cameras: none of these; exclude_person_at_camera: none of this person from
    this camera (the evaluation rule of re-identification); exclude_entry: not this one; named: only with a person.
    """

    cameras: frozenset[str] | None = None
    exclude_cameras: frozenset[str] = frozenset()
    exclude_person_at_camera: tuple[str, str] | None = None
    exclude_entry: int | None = None
    named: bool = False


class Columns:
    """One value a row and column; names are held once and rows hold their codes."""

    def __init__(self) -> None:
        self._entries = _Column(np.int64)
        self._persons = _Column(np.int32)
        self._cameras = _Column(np.int32)
        self._alive = _Column(np.bool_)
        self._person_codes: dict[str, int] = {}
        self._camera_codes: dict[str, int] = {}
        self._person_names: list[str] = []
        self.dead = 0

    def __len__(self) -> int:
        return len(self._alive)

    @property
    def entries(self) -> Rows:
        """The entry id of each row, ascending."""
        return self._entries.values

    @property
    def persons(self) -> npt.NDArray[np.int32]:
        """The person code of each row, -1 where unknown."""
        return self._persons.values

    def person_name(self, code: int) -> str:
        """The person_id behind a code."""
        return self._person_names[code]

    def append(self, entries: Sequence[int], persons: Iterable[str | None], cameras: Iterable[str | None]) -> None:
        """Add rows; entry ids must be over all earlier ones."""
        self._entries.append(entries)
        self._persons.append([self._person_code(person) for person in persons])
        self._cameras.append([_code(self._camera_codes, camera) for camera in cameras])
        self._alive.append([True] * len(entries))

    def relabel(self, entry: int, person: str | None, camera: str | None) -> None:
        """Give an entry another person or camera."""
        rows = self.rows_of([entry])
        before = self.persons[rows]
        self._persons.values[rows] = self._person_code(person)
        self._cameras.values[rows] = _code(self._camera_codes, camera)
        self._forget_of(before)

    def bury(self, entries: Sequence[int]) -> Rows:
        """Mark entries as deleted: they answer no search from here on, and nobody is remembered by name of whom no
        other entry is left. The rows they had.
        """
        rows = self.rows_of(entries)
        self.dead += int(self._alive.values[rows].sum())
        self._alive.values[rows] = False
        self._forget_of(self.persons[rows])
        return rows

    def rows_of(self, entries: Sequence[int]) -> Rows:
        """The rows of those of these entries that are known."""
        wanted = np.asarray(entries, np.int64)
        rows = np.searchsorted(self.entries, wanted)
        inside = rows < len(self)
        found: Rows = rows[inside][self.entries[rows[inside]] == wanted[inside]]
        return found

    def allowed(self, where: Filter) -> Mask:
        """A boolean for each row: alive and let through by the filter."""
        mask: Mask = self._alive.values.copy()
        cameras, persons = self._cameras.values, self._persons.values
        if where.cameras is not None:
            mask &= _among(cameras, self._camera_codes, where.cameras)
        if where.exclude_cameras:
            mask &= ~_among(cameras, self._camera_codes, where.exclude_cameras)
        if where.exclude_person_at_camera is not None:
            person, camera = where.exclude_person_at_camera
            mask &= ~(_among(persons, self._person_codes, [person]) & _among(cameras, self._camera_codes, [camera]))
        if where.exclude_entry is not None:
            mask[self.rows_of([where.exclude_entry])] = False
        if where.named:
            mask &= persons != _UNKNOWN
        return mask

    def compacted(self) -> tuple["Columns", Rows]:
        """A copy without the dead, and the rows it was made of."""
        rows: Rows = np.flatnonzero(self._alive.values)
        cameras = list(self._camera_codes)
        copy = Columns()
        copy.append(
            self.entries[rows].tolist(),
            [None if code == _UNKNOWN else self._person_names[code] for code in self.persons[rows].tolist()],
            [None if code == _UNKNOWN else cameras[code] for code in self._cameras.values[rows].tolist()],
        )
        return copy, rows

    def _person_code(self, person: str | None) -> int:
        if person is None:
            return _UNKNOWN
        if person not in self._person_codes:
            self._person_codes[person] = len(self._person_names)
            self._person_names.append(person)
        return self._person_codes[person]

    def _forget_of(self, codes: npt.NDArray[np.int32]) -> None:
        """Forget the names of those of whom no row is alive; their codes are given to nobody else."""
        left = self.persons[self._alive.values & np.isin(self.persons, codes)]
        for code in np.setdiff1d(codes, left).tolist():
            if code != _UNKNOWN and self._person_names[code]:
                del self._person_codes[self._person_names[code]]
                self._person_names[code] = ""


class _Column:
    """A numpy array that grows by doubling."""

    def __init__(self, dtype: type[Any]) -> None:
        self._data = np.zeros(1024, dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> npt.NDArray[Any]:
        return self._data[: self._count]

    def append(self, values: Sequence[Any]) -> None:
        end = self._count + len(values)
        if end > len(self._data):
            grown = np.zeros(max(end, 2 * len(self._data)), self._data.dtype)
            grown[: self._count] = self.values
            self._data = grown
        self._data[self._count : end] = values
        self._count = end


def _code(codes: dict[str, int], name: str | None) -> int:
    return _UNKNOWN if name is None else codes.setdefault(name, len(codes))


def _among(column: npt.NDArray[np.int32], codes: dict[str, int], names: Iterable[str]) -> Mask:
    return np.isin(column, np.asarray([codes[name] for name in names if name in codes], np.int32))
