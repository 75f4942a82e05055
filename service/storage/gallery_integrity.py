"""What is wrong with a row of the table `galleries`: then no entry of the gallery can be served."""

import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pan_reid.schemas import IndexKind
from service.core.clock import EARLIEST, LATEST

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
MOST_NUMBERS = 2**16  # of a vector; those of a network have a few thousand at most
_LEAST_RETENTION = 86_400_000  # microseconds, as the API takes it
_REMEDIES = {
    "dim": "set dim to the numbers that its vectors have",
    "name": "give it a name made of its number",
    "index_kind": "set index_kind to auto",
    "created_at": "bring created_at within the years 1 to 9999",
    "retention": "remove the retention: its entries stay until they are deleted",
}


@dataclass(frozen=True, slots=True)
class GalleryDamage:
    """`repair` are the columns that can be mended; None where the gallery can only be deleted."""

    what: str
    repair: dict[str, Any] | None

    @property
    def remedy(self) -> str:
        """What a repair does, in words."""
        if self.repair is None:
            return "delete the gallery with its entries"
        return ", ".join(_REMEDIES[name] for name in self.repair)


def gallery_rows(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """The rows of `galleries` by name, with the columns that this database has."""
    cursor = db.cursor()
    cursor.row_factory = None
    cursor.execute("SELECT * FROM galleries ORDER BY name")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def examine_gallery(row: Mapping[str, Any], vector_numbers: int) -> GalleryDamage | None:
    """What is wrong with a row, by the names of its columns; None where it can be served.

    `vector_numbers` is what `numbers_in_vectors` found. A database of an earlier release lacks some columns.
    """
    what: list[str] = []
    repair: dict[str, Any] = {}
    if "\N{REPLACEMENT CHARACTER}" in row["name"]:  # no caller can give such a name
        what.append("its name is not UTF-8")
        repair["name"] = f"gallery-{row['id']}"
    if row["index_kind"] not in get_args(IndexKind):
        what.append(f"its index_kind is none of {', '.join(get_args(IndexKind))}")
        repair["index_kind"] = "auto"
    if not EARLIEST <= row["created_at"] <= LATEST:
        what.append("created_at is not within the years 1 to 9999")
        repair["created_at"] = min(max(row["created_at"], EARLIEST), LATEST)
    retention = row.get("retention")
    if retention is not None and retention < _LEAST_RETENTION:
        what.append("its retention is shorter than 0.001 days")
        repair["retention"] = None
    if vector_numbers != row["dim"]:
        what.append(f"its dim is {row['dim']} and its vectors have {vector_numbers} numbers")
        repair["dim"] = vector_numbers
    mendable = len(what)
    if vector_numbers == row["dim"] and not 1 <= row["dim"] <= MOST_NUMBERS:
        what.append(f"its vectors cannot have {row['dim']} numbers")
    if not _FINGERPRINT.fullmatch(row["fingerprint"]):
        what.append("the fingerprint of its model is no SHA-256")
    if not what:
        return None
    return GalleryDamage("; ".join(what), repair if len(what) == mendable else None)
