"""Attributes of rows as keyed hashes, for filters by name and value."""

import hashlib
import os
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from service.core.types import Rows
from service.index.columns import GrowableArray

_WIPED = 0  # replaces a hash


class AttributeHashes:
    """A 64-bit hash of each attribute: 16 bytes an attribute and 12 bytes a row, for any number of names and values.

    The hash key is random for each process. So the memory reveals no attribute, and a client cannot craft collisions.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or os.urandom(16)
        self._starts = GrowableArray(np.int64)  # by row: the position of its first hash
        self._counts = GrowableArray(np.int32)  # by row: the number of its hashes
        self._rows = GrowableArray(np.int64)  # by hash: its row
        self._hashes = GrowableArray(np.uint64)
        self._wiped = 0

    def append(self, attributes: Iterable[str]) -> None:
        """Add rows. Each element is a JSON object of scalars."""
        hashes = [self._hash_all(text) for text in attributes]
        counts = np.fromiter(map(len, hashes), np.int64, len(hashes))
        rows = len(self._starts) + np.arange(len(hashes))
        values = np.fromiter(chain.from_iterable(hashes), np.uint64, int(counts.sum()))
        self._append(rows, counts, values)

    def replace(self, rows: Rows, attributes: str) -> None:
        """Set the attributes of (n,) rows to a JSON object of scalars."""
        self.wipe(rows)
        hashes = self._hash_all(attributes)
        self._starts.values[rows] = len(self._hashes) + len(hashes) * np.arange(len(rows))
        self._counts.values[rows] = len(hashes)
        self._rows.append(np.repeat(rows, len(hashes)))
        self._hashes.append(np.array(hashes * len(rows), np.uint64))

    def rows_with(self, keys: Iterable[bytes]) -> Rows:
        """(n,) rows that have any of these `attribute_key`s."""
        wanted = np.array([self._hash(key) for key in keys], np.uint64)
        found: Rows = self._rows.values[np.isin(self._hashes.values, wanted)]
        return found

    def wipe(self, rows: Rows) -> None:
        """Remove the attributes of (n,) rows, and overwrite their hashes."""
        places = self._places(rows)
        self._hashes.values[places] = _WIPED
        self._counts.values[rows] = 0
        self._wiped += len(places)
        if 2 * self._wiped > len(self._hashes):
            kept = self.take(np.arange(len(self._starts)))
            self._starts, self._counts = kept._starts, kept._counts
            self._rows, self._hashes, self._wiped = kept._rows, kept._hashes, 0

    def take(self, rows: Rows) -> "AttributeHashes":
        """A copy of (n,) rows, numbered from 0."""
        copy = AttributeHashes(self._key)
        copy._append(np.arange(len(rows)), self._counts.values[rows], self._hashes.values[self._places(rows)])
        return copy

    def _append(self, rows: Rows, counts: npt.NDArray[Any], hashes: npt.NDArray[np.uint64]) -> None:
        self._starts.append(len(self._hashes) + np.cumsum(counts) - counts)
        self._counts.append(counts)
        self._rows.append(np.repeat(rows, counts))
        self._hashes.append(hashes)

    def _places(self, rows: Rows) -> Rows:
        """Positions of the hashes of (n,) rows, in the order of the rows."""
        starts, counts = self._starts.values[rows], self._counts.values[rows]
        places: Rows = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        return places

    def _hash_all(self, text: str) -> list[int]:
        if text == "{}":
            return []
        return [self._hash(attribute_key(name, value)) for name, value in orjson.loads(text).items()]

    def _hash(self, key: bytes) -> int:
        return int.from_bytes(hashlib.blake2b(key, digest_size=8, key=self._key).digest(), "little")


def attribute_key(name: str, value: str | bool | int | float | None) -> bytes:
    """A canonical form of an attribute. As in JSON, 1 equals 1.0, and true equals neither.

    Integers of 64 bits are compared exactly. Larger ones in JSON are read as the nearest float.
    """
    if isinstance(value, float) and value.is_integer() and -(2**63) <= value < 2**64:
        value = int(value)
    return orjson.dumps([name, value])
