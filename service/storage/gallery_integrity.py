"""Examines the rows of the table `galleries`. A gallery with a damaged row is not served at all."""

import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pan_reid.schemas import IndexKind
from service.core.clock import EARLIEST, LATEST

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
MAX_DIM = 2**16  # of a vector; embedding models have a few thousand at most
_MIN_RETENTION = 86_400_000  # microseconds; the API has the same minimum
_REMEDIES = {
    "dim": "set dim to the dimension of its vectors",
    "name": "rename it to gallery- and its id",
    "index_kind": "set index_kind to auto",
    "created_at": "clamp created_at to the years 1 to 9999",
    "retention": "remove the retention, so that entries do not expire",
}


@dataclass(frozen=True, slots=True)
class GalleryDamage:
    """A damaged gallery. `repair` maps columns to repaired values; None means that the gallery can only be deleted."""

    problem: str
    repair: dict[str, Any] | None

    @property
    def remedy(self) -> str:
        """A description of the repair."""
        if self.repair is None:
            return "delete the gallery with its entries"
        return ", ".join(_REMEDIES[name] for name in self.repair)


def gallery_rows(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """The rows of `galleries`, sorted by name, with the columns of this schema version."""
    cursor = db.cursor()
    cursor.row_factory = None
    cursor.execute("SELECT * FROM galleries ORDER BY name")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def examine_gallery(row: Mapping[str, Any], stored_dim: int) -> GalleryDamage | None:
    """The damage of a row, given as column -> value; None if the gallery can be served.

    `stored_dim` is the result of `most_common_dim`. A database of an earlier release lacks some columns.
    """
    problems: list[str] = []
    repair: dict[str, Any] = {}
    if "\N{REPLACEMENT CHARACTER}" in row["name"]:  # the API accepts no such name
        problems.append("its name is not UTF-8")
        repair["name"] = f"gallery-{row['id']}"
    if row["index_kind"] not in get_args(IndexKind):
        problems.append(f"its index_kind is not one of {', '.join(get_args(IndexKind))}")
        repair["index_kind"] = "auto"
    if not EARLIEST <= row["created_at"] <= LATEST:
        problems.append("created_at is not between the years 1 and 9999")
        repair["created_at"] = min(max(row["created_at"], EARLIEST), LATEST)
    retention = row.get("retention")
    if retention is not None and retention < _MIN_RETENTION:
        problems.append("its retention is shorter than 0.001 days")
        repair["retention"] = None
    if stored_dim != row["dim"]:
        problems.append(f"its dim is {row['dim']}, but its vectors have dimension {stored_dim}")
        repair["dim"] = stored_dim
    repairable = len(problems)
    if stored_dim == row["dim"] and not 1 <= row["dim"] <= MAX_DIM:
        problems.append(f"its dim is {row['dim']}, not between 1 and {MAX_DIM}")
    if not _FINGERPRINT.fullmatch(row["fingerprint"]):
        problems.append("the fingerprint of its model is not a SHA-256")
    if not problems:
        return None
    return GalleryDamage("; ".join(problems), repair if len(problems) == repairable else None)
