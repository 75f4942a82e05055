"""Arrays that grow row by row: of numbers, of names, and of attributes."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from service.index import Mask, Rows

UNKNOWN = -1  # the code of a row without a name
_WIPED = 0  # in place of a digest


class Column:
    """A numpy array that grows by doubling."""

    def __init__(self, dtype: type[Any]) -> None:
        self._data = np.zeros(1024, dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> npt.NDArray[Any]:
        """What is in it; a view, so writing to it changes the column."""
        return self._data[: self._count]

    def append(self, values: Sequence[Any] | npt.NDArray[Any]) -> None:
        """Add to the end."""
        end = self._count + len(values)
        if end > len(self._data):
            grown = np.zeros(max(end, 2 * len(self._data)), self._data.dtype)
            grown[: self._count] = self.values
            self._data = grown
        self._data[self._count : end] = values
        self._count = end


class Names:
    """A name, or none, for each row; names are held once and rows hold their codes."""

    def __init__(self) -> None:
        self._column = Column(np.int32)
        self._code_of: dict[str | None, int] = {None: UNKNOWN}
        self._names: list[str] = []

    @property
    def codes(self) -> npt.NDArray[np.int32]:
        """The code of each row, UNKNOWN where it has no name."""
        return self._column.values

    def name(self, code: int) -> str | None:
        """The name behind a code."""
        return None if code == UNKNOWN else self._names[code]

    def append(self, names: Iterable[str | None]) -> None:
        """Add rows."""
        names = list(names)
        for name in names:
            if name not in self._code_of:
                self._code(name)
        self._column.append([self._code_of[name] for name in names])

    def rename(self, rows: Rows, name: str | None) -> None:
        """Give rows another name."""
        self._column.values[rows] = self._code(name)

    def among(self, names: Iterable[str]) -> Mask:
        """A boolean for each row: whether it has one of these names."""
        return self.having([self._code_of[name] for name in names if name in self._code_of])

    def having(self, codes: Sequence[int]) -> Mask:
        """A boolean for each row: whether it has one of these codes."""
        if len(codes) == 1:
            one: Mask = self.codes == codes[0]
            return one
        wanted = np.zeros(len(self._names) + 1, np.bool_)  # the last place is that of UNKNOWN, which is -1
        wanted[np.asarray(codes, np.int64)] = True
        wanted[UNKNOWN] = False
        return wanted[self.codes]

    def forget(self, codes: npt.NDArray[np.int32], alive: Mask) -> None:
        """Forget those of these names that no row which is alive has; their codes are given to nobody else."""
        left = self.codes[alive & np.isin(self.codes, codes)]
        for code in np.setdiff1d(codes, left).tolist():
            if code != UNKNOWN and self._names[code]:
                del self._code_of[self._names[code]]
                self._names[code] = ""

    def taken(self, rows: Rows) -> "Names":
        """A copy of these rows."""
        copy = Names()
        copy.append(map(self.name, self.codes[rows].tolist()))
        return copy

    def _code(self, name: str | None) -> int:
        if name is not None and name not in self._code_of:
            self._code_of[name] = len(self._names)
            self._names.append(name)
        return self._code_of[name]


class Tags:
    """The attributes of rows: 16 bytes each, however many names and values there are.

    Held as digests under a key of this process, so nothing can be read from memory, and nobody outside can make two
    values fall together.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or os.urandom(16)
        self._rows = Column(np.int64)
        self._digests = Column(np.uint64)

    def append(self, rows: Sequence[int], attributes: Iterable[str]) -> None:
        """Add what rows carry, a JSON object of scalars each."""
        pairs = [
            (row, self._digest(tag(name, value)))
            for row, text in zip(rows, attributes, strict=True)
            if text != "{}"
            for name, value in orjson.loads(text).items()
        ]
        self._rows.append([row for row, _ in pairs])
        self._digests.append(np.array([digest for _, digest in pairs], np.uint64))

    def rows_with(self, tags: Iterable[bytes]) -> Rows:
        """The rows that carry any of these."""
        wanted = np.array([self._digest(one) for one in tags], np.uint64)
        found: Rows = self._rows.values[np.isin(self._digests.values, wanted)]
        return found

    def wipe(self, rows: Rows) -> None:
        """Take from rows what they carry."""
        self._digests.values[np.isin(self._rows.values, rows)] = _WIPED
        held = self._digests.values != _WIPED
        if 2 * np.count_nonzero(held) < len(held):
            self._keep(self._rows.values[held], self._digests.values[held])

    def taken(self, rows: Rows) -> "Tags":
        """A copy of what these rows carry, for rows that are numbered anew from 0. `rows` ascends."""
        copy = Tags(self._key)
        held = np.isin(self._rows.values, rows) & (self._digests.values != _WIPED)
        copy._keep(np.searchsorted(rows, self._rows.values[held]), self._digests.values[held])
        return copy

    def _keep(self, rows: Rows, digests: npt.NDArray[np.uint64]) -> None:
        self._rows, self._digests = Column(np.int64), Column(np.uint64)
        self._rows.append(rows)
        self._digests.append(digests)

    def _digest(self, one: bytes) -> int:
        return int.from_bytes(hashlib.blake2b(one, digest_size=8, key=self._key).digest(), "little")


def tag(name: str, value: str | bool | int | float | None) -> bytes:
    """An attribute and its value in one form: 1 and 1.0 are alike, as in JSON, and true is neither."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return orjson.dumps([name, value])
