"""Growable columns: numbers, and strings in dictionary encoding."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.core.types import Mask, Rows

NO_VALUE = -1  # the code of a row without a value


class GrowableArray:
    """A one-dimensional NumPy array that doubles its capacity when it is full."""

    def __init__(self, dtype: type[Any], fill: int = 0) -> None:
        """`fill` is the value of rows that `put` skips."""
        self._fill = fill
        self._data = np.full(1024, fill, dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> npt.NDArray[Any]:
        """(N,) values, as a writable view."""
        return self._data[: self._count]

    def append(self, values: Sequence[Any] | npt.NDArray[Any]) -> None:
        """Add values at the end."""
        start = self._count
        self._resize(start + len(values))
        self._data[start : self._count] = values

    def put(self, rows: Rows, values: npt.NDArray[Any]) -> None:
        """Set (n,) values at (n,) rows. The array grows to contain them."""
        self._resize(max(self._count, int(rows.max(initial=-1)) + 1))
        self._data[rows] = values

    def padded(self, count: int) -> npt.NDArray[Any]:
        """(count,) values of the first rows; rows past the end have the fill value."""
        self._reserve(count)
        return self._data[:count]

    def _resize(self, count: int) -> None:
        self._reserve(count)
        self._count = count

    def _reserve(self, count: int) -> None:
        if count > len(self._data):
            grown = np.full(max(count, 2 * len(self._data)), self._fill, self._data.dtype)
            grown[: self._count] = self.values
            self._data = grown


class DictionaryColumn:
    """An optional string for each row, stored once per distinct string. A string is dropped with its last row."""

    def __init__(self) -> None:
        self._column = GrowableArray(np.int32)
        self._code_of: dict[str | None, int] = {None: NO_VALUE}
        self._names: list[str] = []
        self._uses = GrowableArray(np.int64)  # by code: the number of rows, without released ones

    @property
    def distinct(self) -> int:
        """The number of distinct strings."""
        return len(self._code_of) - 1

    @property
    def codes(self) -> npt.NDArray[np.int32]:
        """(N,) int32: the code of each row, NO_VALUE without a string."""
        return self._column.values

    def name(self, code: int) -> str | None:
        """The string of a code."""
        return None if code == NO_VALUE else self._names[code]

    def append(self, names: Iterable[str | None]) -> None:
        """Add rows."""
        names = list(names)
        for name in names:
            if name not in self._code_of:
                self._code(name)
        codes = np.array([self._code_of[name] for name in names], np.int32)
        self._column.append(codes)
        self._count_uses(codes)

    def rename(self, rows: Rows, name: str | None) -> None:
        """Set the string of (n,) rows."""
        if len(rows) == 0:
            return
        before = self.codes[rows].copy()
        self._column.values[rows] = self._code(name)
        self._count_uses(self.codes[rows])
        self._release_codes(before)

    def release(self, rows: Rows) -> None:
        """Stop counting deleted rows. Release each row once. Its code stays, and no other string gets that code."""
        self._release_codes(self.codes[rows])

    def isin(self, names: Iterable[str]) -> Mask:
        """(N,) booleans: whether the row has one of these strings."""
        return self.has_code([self._code_of[name] for name in names if name in self._code_of])

    def has_code(self, codes: Sequence[int]) -> Mask:
        """(N,) booleans: whether the row has one of these codes."""
        if len(codes) == 1:
            equal: Mask = self.codes == codes[0]
            return equal
        wanted = np.zeros(len(self._names) + 1, np.bool_)  # the last element is for NO_VALUE, which is -1
        wanted[np.asarray(codes, np.int64)] = True
        wanted[NO_VALUE] = False
        return wanted[self.codes]

    def take(self, rows: Rows) -> "DictionaryColumn":
        """A new column of (n,) rows. None of them may be released."""
        copy = DictionaryColumn()
        used, places = np.unique(self.codes[rows], return_inverse=True)
        codes = np.array([copy._code(self.name(code)) for code in used.tolist()], np.int32)[places]
        copy._column.append(codes)
        copy._count_uses(codes)
        return copy

    def _count_uses(self, codes: npt.NDArray[np.int32]) -> None:
        self._uses.append(np.zeros(len(self._names) - len(self._uses), np.int64))
        np.add.at(self._uses.values, codes[codes != NO_VALUE], 1)

    def _release_codes(self, codes: npt.NDArray[np.int32]) -> None:
        codes = codes[codes != NO_VALUE]
        np.subtract.at(self._uses.values, codes, 1)
        for code in np.unique(codes[self._uses.values[codes] == 0]).tolist():
            del self._code_of[self._names[code]]
            self._names[code] = ""

    def _code(self, name: str | None) -> int:
        if name is not None and name not in self._code_of:
            self._code_of[name] = len(self._names)
            self._names.append(name)
        return self._code_of[name]
