"""Arrays that grow row by row: of numbers, of names, and of attributes."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from service.core.types import Mask, Rows

UNKNOWN = -1  # the code of a row without a name
_WIPED = 0  # in place of a digest


class GrowableArray:
    """A numpy array that grows by doubling."""

    def __init__(self, dtype: type[Any], empty: int = 0) -> None:
        """`empty` is the value of rows that `put` passes over."""
        self._empty = empty
        self._data = np.full(1024, empty, dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> npt.NDArray[Any]:
        """What is in it; a view, so writing to it changes the column."""
        return self._data[: self._count]

    def append(self, values: Sequence[Any] | npt.NDArray[Any]) -> None:
        """Add to the end."""
        start = self._count
        self._grow(start + len(values))
        self._data[start : self._count] = values

    def put(self, rows: Rows, values: npt.NDArray[Any]) -> None:
        """Set the values of these rows; the column grows to hold them."""
        self._grow(max(self._count, int(rows.max(initial=-1)) + 1))
        self._data[rows] = values

    def padded(self, count: int) -> npt.NDArray[Any]:
        """The values of the first `count` rows; those past the end are empty."""
        self._grow_room(count)
        return self._data[:count]

    def _grow(self, count: int) -> None:
        self._grow_room(count)
        self._count = count

    def _grow_room(self, count: int) -> None:
        if count > len(self._data):
            grown = np.full(max(count, 2 * len(self._data)), self._empty, self._data.dtype)
            grown[: self._count] = self.values
            self._data = grown


class DictionaryColumn:
    """A name, or none, for each row. A name is held once, rows hold its code, and it is forgotten with its last row."""

    def __init__(self) -> None:
        self._column = GrowableArray(np.int32)
        self._code_of: dict[str | None, int] = {None: UNKNOWN}
        self._names: list[str] = []
        self._uses = GrowableArray(np.int64)  # how many rows have each code, without those that were released

    @property
    def distinct(self) -> int:
        """The number of different names."""
        return len(self._code_of) - 1

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
        codes = np.array([self._code_of[name] for name in names], np.int32)
        self._column.append(codes)
        self._use(codes)

    def rename(self, rows: Rows, name: str | None) -> None:
        """Give rows another name."""
        if len(rows) == 0:
            return
        before = self.codes[rows].copy()
        self._column.values[rows] = self._code(name)
        self._use(self.codes[rows])
        self._forget_unused(before)

    def release(self, rows: Rows) -> None:
        """Count these rows no more, each of which is released once; they keep their codes, which are given to no other
        name.
        """
        self._forget_unused(self.codes[rows])

    def isin(self, names: Iterable[str]) -> Mask:
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

    def taken(self, rows: Rows) -> "DictionaryColumn":
        """A copy of these rows, none of which was released."""
        copy = DictionaryColumn()
        used, places = np.unique(self.codes[rows], return_inverse=True)
        codes = np.array([copy._code(self.name(code)) for code in used.tolist()], np.int32)[places]
        copy._column.append(codes)
        copy._use(codes)
        return copy

    def _use(self, codes: npt.NDArray[np.int32]) -> None:
        self._uses.append(np.zeros(len(self._names) - len(self._uses), np.int64))
        np.add.at(self._uses.values, codes[codes != UNKNOWN], 1)

    def _forget_unused(self, codes: npt.NDArray[np.int32]) -> None:
        codes = codes[codes != UNKNOWN]
        np.subtract.at(self._uses.values, codes, 1)
        for code in np.unique(codes[self._uses.values[codes] == 0]).tolist():
            del self._code_of[self._names[code]]
            self._names[code] = ""

    def _code(self, name: str | None) -> int:
        if name is not None and name not in self._code_of:
            self._code_of[name] = len(self._names)
            self._names.append(name)
        return self._code_of[name]


class AttributeHashes:
    """The attributes of rows: 16 bytes each, and 12 a row, however many names and values there are.

    Held as digests under a key of this process, so nothing can be read from memory, and nobody outside can make two
    values fall together.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or os.urandom(16)
        self._starts = GrowableArray(np.int64)  # of each row: where its digests begin, and how many there are
        self._counts = GrowableArray(np.int32)
        self._rows = GrowableArray(np.int64)  # of each digest
        self._digests = GrowableArray(np.uint64)
        self._wiped = 0

    def append(self, attributes: Iterable[str]) -> None:
        """Add rows, a JSON object of scalars each."""
        digests = [self._digests_of(text) for text in attributes]
        counts = np.fromiter(map(len, digests), np.int64, len(digests))
        rows = len(self._starts) + np.arange(len(digests))
        values = np.fromiter(chain.from_iterable(digests), np.uint64, int(counts.sum()))
        self._append(rows, counts, values)

    def replace(self, rows: Rows, attributes: str) -> None:
        """Give rows other attributes."""
        self.wipe(rows)
        digests = self._digests_of(attributes)
        self._starts.values[rows] = len(self._digests) + len(digests) * np.arange(len(rows))
        self._counts.values[rows] = len(digests)
        self._rows.append(np.repeat(rows, len(digests)))
        self._digests.append(np.array(digests * len(rows), np.uint64))

    def rows_with(self, tags: Iterable[bytes]) -> Rows:
        """The rows that carry any of these."""
        wanted = np.array([self._digest(one) for one in tags], np.uint64)
        found: Rows = self._rows.values[np.isin(self._digests.values, wanted)]
        return found

    def wipe(self, rows: Rows) -> None:
        """Take from rows what they carry."""
        places = self._places(rows)
        self._digests.values[places] = _WIPED
        self._counts.values[rows] = 0
        self._wiped += len(places)
        if 2 * self._wiped > len(self._digests):
            kept = self.taken(np.arange(len(self._starts)))
            self._starts, self._counts = kept._starts, kept._counts
            self._rows, self._digests, self._wiped = kept._rows, kept._digests, 0

    def taken(self, rows: Rows) -> "AttributeHashes":
        """A copy of what these rows carry, for rows that are numbered anew from 0."""
        copy = AttributeHashes(self._key)
        copy._append(np.arange(len(rows)), self._counts.values[rows], self._digests.values[self._places(rows)])
        return copy

    def _append(self, rows: Rows, counts: npt.NDArray[Any], digests: npt.NDArray[np.uint64]) -> None:
        self._starts.append(len(self._digests) + np.cumsum(counts) - counts)
        self._counts.append(counts)
        self._rows.append(np.repeat(rows, counts))
        self._digests.append(digests)

    def _places(self, rows: Rows) -> Rows:
        """Where the digests of these rows are, those of each row together."""
        starts, counts = self._starts.values[rows], self._counts.values[rows]
        places: Rows = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        return places

    def _digests_of(self, text: str) -> list[int]:
        if text == "{}":
            return []
        return [self._digest(tag(name, value)) for name, value in orjson.loads(text).items()]

    def _digest(self, one: bytes) -> int:
        return int.from_bytes(hashlib.blake2b(one, digest_size=8, key=self._key).digest(), "little")


def tag(name: str, value: str | bool | int | float | None) -> bytes:
    """An attribute and its value in one form: 1 and 1.0 are alike, as in JSON, and true is neither.

    Integers of 64 bits are compared exactly. JSON of larger ones is read as the nearest float.
    """
    if isinstance(value, float) and value.is_integer() and -(2**63) <= value < 2**64:
        value = int(value)
    return orjson.dumps([name, value])
