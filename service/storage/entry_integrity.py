"""Examines the entries of a gallery: their vectors, times, texts and attributes. N is a number of entries, D their dim.

A damaged entry is set aside: it is excluded from searches, but can be listed and deleted.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import orjson

from service.core.clock import EARLIEST, LATEST
from service.core.types import Vectors
from service.core.vectors import has_unit_length, is_undefined, normalize_rows
from service.storage.entries import NEW_VECTOR, VECTOR, WITH_NEW_VECTORS
from service.storage.gallery_integrity import MAX_DIM

_CHUNK_ROWS, _CHUNK_BYTES = 1024, 2**24  # rows in memory at a time, and bytes of their vectors

# As `entries.WITH_VECTORS`, but including entries without a vector. A backup of an earlier release may lack the table
# `reembedded` and the column `since`, so the definition of `since` is repeated here.
_ENTRIES = "entries LEFT JOIN vectors ON vectors.entry_id = entries.id"
_REEMBEDDED = (
    " LEFT JOIN reembedded ON reembedded.entry_id = vectors.entry_id AND EXISTS"
    " (SELECT 1 FROM reembeddings WHERE reembeddings.gallery_id = entries.gallery_id AND finished_at IS NOT NULL)"
)
_SINCE = "min(coalesce(captured_at, created_at), created_at)"

_REMEDIES = {
    "vector": "normalise the vector",
    "captured_at": "clamp captured_at to the years 1 to 9999",
    "created_at": "clamp created_at to the years 1 to 9999",
    "attributes": "clear the attributes, or replace invalid UTF-8 in them",
    "person_id": "replace invalid UTF-8 in person_id",
    "camera_id": "replace invalid UTF-8 in camera_id",
}

_REPLACED = "\N{REPLACEMENT CHARACTER}"  # which `connection.lenient_text` reads in place of invalid UTF-8


class EntryColumns(NamedTuple):
    """N entries as columns, because a million row objects would take longer to create than to read."""

    ids: tuple[int, ...] = ()
    persons: tuple[str | None, ...] = ()
    cameras: tuple[str | None, ...] = ()
    captured: tuple[int | None, ...] = ()
    attributes: tuple[str, ...] = ()
    created: tuple[int, ...] = ()
    since: tuple[int, ...] = ()
    vectors: tuple[bytes | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged entry. `repair` maps database columns to repaired values; None means that it can only be deleted."""

    entry_id: int
    problem: str
    repair: dict[str, Any] | None

    @property
    def remedy(self) -> str:
        """A description of the repair."""
        if self.repair is None:
            return "delete the entry"
        return ", ".join(_REMEDIES[name] for name in self.repair)


@dataclass(frozen=True, slots=True)
class ExaminedEntries:
    """A chunk of the entries of a gallery: the valid ones with their (N, D) vectors, and the damaged ones."""

    valid: EntryColumns
    vectors: Vectors
    damaged: list[Damage]


def examine_entries(
    db: sqlite3.Connection, gallery_id: int, dim: int, *, new_vectors: bool = False
) -> Iterator[ExaminedEntries]:
    """Examine the entries of a gallery in the order of enrolment, in chunks.

    With `new_vectors`, examine the vectors of the model that it is being re-embedded with.
    """
    vector, source = _vector_source(db, new_vectors)
    cursor = db.cursor()
    cursor.row_factory = None
    cursor.execute(
        f"SELECT entries.id, person_id, camera_id, captured_at, attributes, created_at, {_SINCE}, {vector}"
        f" FROM {source} WHERE gallery_id = ? ORDER BY entries.id",
        (gallery_id,),
    )
    chunk = max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // (4 * dim)))
    while rows := cursor.fetchmany(chunk):
        yield _examine(rows, dim, _invalid_utf8(db, rows))


def most_common_dim(db: sqlite3.Connection, gallery_id: int, dim: int) -> int:
    """The dimension of more than half of a gallery's vectors; `dim` if there is none, or if the first vector has it.

    Only the first vector is read in that case, because reading the lengths of all takes seconds in a large gallery.
    """
    vector, source = _vector_source(db, new=False)
    source += f" WHERE gallery_id = ? AND {vector} IS NOT NULL"
    first = db.execute(f"SELECT length({vector}) FROM {source} LIMIT 1", (gallery_id,)).fetchone()
    if first is None or first[0] == 4 * dim:
        return dim
    by_count = f"SELECT length({vector}), count(*) FROM {source} GROUP BY 1 ORDER BY 2 DESC"
    lengths = db.execute(by_count, (gallery_id,)).fetchall()
    size, count = lengths[0]
    is_majority = 2 * count > sum(each[1] for each in lengths)
    return size // 4 if size % 4 == 0 and 1 <= size // 4 <= MAX_DIM and is_majority else dim


def are_attributes(text: str) -> bool:
    """Whether this is a JSON object of scalars."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and not any(isinstance(value, dict | list) for value in found.values())


def first_few(damaged: Sequence[Damage], limit: int = 5) -> str:
    """The first `limit` damaged entries, as a text for logs and messages."""
    few = [f"{one.entry_id} ({one.problem})" for one in damaged[:limit]]
    return ", ".join([*few, *(["..."] if len(damaged) > limit else [])])


def _vector_source(db: sqlite3.Connection, new: bool) -> tuple[str, str]:
    """The SQL expression of an entry's vector, and the tables to select it from."""
    if new:
        return NEW_VECTOR, WITH_NEW_VECTORS
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'reembedded'").fetchone() is None:
        return "vectors.vector", _ENTRIES
    return VECTOR, _ENTRIES + _REEMBEDDED


def _examine(rows: list[tuple[Any, ...]], dim: int, invalid_utf8: dict[int, dict[str, str]]) -> ExaminedEntries:
    columns = EntryColumns._make(zip(*rows, strict=True))
    zeros = bytes(4 * dim)
    blobs = [blob if blob is not None and len(blob) == len(zeros) else zeros for blob in columns.vectors]
    vectors = np.frombuffer(b"".join(blobs), "<f4").reshape(len(rows), dim)
    valid = has_unit_length(vectors)
    for place in _invalid_metadata(columns):
        valid[place] = False
    for id_ in invalid_utf8:
        valid[columns.ids.index(id_)] = False
    if valid.all():
        return ExaminedEntries(columns, vectors, [])
    damaged = [
        _damage(EntryColumns._make(rows[place]), vectors[place], dim, invalid_utf8.get(rows[place][0], {}))
        for place in np.flatnonzero(~valid)
    ]
    chosen = [rows[place] for place in np.flatnonzero(valid)]
    columns = EntryColumns._make(zip(*chosen, strict=True)) if chosen else EntryColumns()
    return ExaminedEntries(columns, vectors[valid], damaged)


def _invalid_utf8(db: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> dict[int, dict[str, str]]:
    """By entry, the columns with invalid UTF-8, and their text with replacement characters."""
    columns = EntryColumns._make(zip(*rows, strict=True))
    found: dict[int, dict[str, str]] = {}
    texts = {"person_id": columns.persons, "camera_id": columns.cameras, "attributes": columns.attributes}
    for name, column in texts.items():
        if _REPLACED not in "".join(filter(None, column)):
            continue
        for id_, text in zip(columns.ids, column, strict=True):
            if text is not None and _REPLACED in text:  # a client may also have sent this character
                same = db.execute(f"SELECT {name} = ? FROM entries WHERE id = ?", (text, id_)).fetchone()[0]
                if not same:
                    found.setdefault(id_, {})[name] = text
    return found


def _invalid_metadata(columns: EntryColumns) -> Iterator[int]:
    """The positions of entries with invalid times or attributes."""
    broken = {text for text in set(columns.attributes) if text != "{}" and not are_attributes(text)}
    captured = [at for at in columns.captured if at is not None] or [0]
    extremes = (min(columns.created), max(columns.created), min(captured), max(captured))
    if not broken and all(map(_is_time, extremes)):
        return
    for place, attributes in enumerate(columns.attributes):
        times = (columns.created[place], columns.captured[place] or 0)
        if attributes in broken or not all(map(_is_time, times)):
            yield place


def _is_time(at: int) -> bool:
    return EARLIEST <= at <= LATEST


def _damage(row: Any, vector: Vectors, dim: int, invalid_utf8: dict[str, str]) -> Damage:
    """`row` is an `EntryColumns` with the values of a single entry."""
    problems: list[str] = []
    repair: dict[str, Any] | None = {}
    if row.vectors is None:
        problems, repair = ["it has no vector"], None
    elif len(row.vectors) != 4 * dim:
        problems, repair = [f"its vector has {len(row.vectors)} bytes, not {4 * dim}"], None
    elif not has_unit_length(vector[None])[0]:
        unit = normalize_rows(vector[None])
        length = float(np.linalg.norm(vector.astype(np.float64)))
        problems = [f"its vector has length {length:.3g}, not 1"]
        repair = None if is_undefined(unit)[0] else {"vector": unit[0].astype("<f4").tobytes()}
    for name, at in (("captured_at", row.captured), ("created_at", row.created)):
        if at is not None and not _is_time(at):
            problems.append(f"{name} is not between the years 1 and 9999")
            repair = None if repair is None else {**repair, name: min(max(at, EARLIEST), LATEST)}
    for name, text in invalid_utf8.items():
        problems.append(f"{name} is not UTF-8")
        repair = None if repair is None else {**repair, name: text}
    if not are_attributes(row.attributes):
        problems.append("its attributes are not a JSON object of scalars")
        repair = None if repair is None else {**repair, "attributes": "{}"}
    return Damage(row.ids, "; ".join(problems), repair)
