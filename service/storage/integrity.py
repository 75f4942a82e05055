"""What is wrong with a database: the one examination of a start, of `pan-serve check`, of a backup and of a restore.

A damaged entry is set aside: it answers no search, and is listed and erased as any other. N entries have vectors of D
numbers.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import orjson

from service.core.clock import EARLIEST, LATEST
from service.core.types import Vectors
from service.core.vectors import has_unit_length, is_undefined, normalize_rows
from service.storage import galleries as gallery_records
from service.storage.entries import NEW_VECTOR, VECTOR, WITH_NEW_VECTORS, count_entries
from service.storage.gallery_integrity import MOST_NUMBERS, GalleryDamage, examine_gallery, gallery_rows

_CHUNK = 1024

# As `records.WITH_VECTORS`, with the entries that have no vector. A backup of an earlier release may lack the table
# `reembedded`, and the column `since`, which is written out here.
_ENTRIES = "entries LEFT JOIN vectors ON vectors.entry_id = entries.id"
_REEMBEDDED = (
    " LEFT JOIN reembedded ON reembedded.entry_id = vectors.entry_id AND EXISTS"
    " (SELECT 1 FROM reembeddings WHERE reembeddings.gallery_id = entries.gallery_id AND finished_at IS NOT NULL)"
)
_SINCE = "min(coalesce(captured_at, created_at), created_at)"


_REMEDIES = {
    "vector": "normalise the vector",
    "captured_at": "bring captured_at within the years 1 to 9999",
    "created_at": "bring created_at within the years 1 to 9999",
    "attributes": "empty the attributes, or replace in them what is not UTF-8",
    "person_id": "replace in person_id what is not UTF-8",
    "camera_id": "replace in camera_id what is not UTF-8",
}


_REPLACED = "\N{REPLACEMENT CHARACTER}"
lenient_text = partial(str, encoding="utf-8", errors="replace")
"""The text factory of every connection: SQLite checks no encoding, and one byte that flipped would fail every read."""


class EntryColumns(NamedTuple):
    """Many entries, a value each in every column. A million objects would take longer to make than to read."""

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
    """What is wrong with an entry. `repair` are the columns that can be mended, by the name that they have in the
    database; None where it can only be deleted.
    """

    entry_id: int
    what: str
    repair: dict[str, Any] | None

    @property
    def remedy(self) -> str:
        """What a repair does, in words."""
        if self.repair is None:
            return "delete the entry"
        return ", ".join(_REMEDIES[name] for name in self.repair)


@dataclass(frozen=True, slots=True)
class Examined:
    """Some entries of a gallery: those that can be searched, with their (N, D) vectors, and those that cannot."""

    sound: EntryColumns
    vectors: Vectors
    damaged: list[Damage]


@dataclass(frozen=True, slots=True)
class GalleryReport:
    """What was found in a gallery; with `damage` the gallery itself is set aside."""

    id: int
    name: str
    entries: int
    fingerprint: str
    damaged: list[Damage] = field(default_factory=list)
    damage: GalleryDamage | None = None


def examine_entries(
    db: sqlite3.Connection, gallery_id: int, dim: int, *, new_vectors: bool = False
) -> Iterator[Examined]:
    """The entries of a gallery in the order of enrolment, in parts, as this connection sees them; `new_vectors` as in
    `rebuild`.
    """
    vector, source = _vectors_of(db, new_vectors)
    cursor = db.cursor()
    cursor.row_factory = None
    cursor.execute(
        f"SELECT entries.id, person_id, camera_id, captured_at, attributes, created_at, {_SINCE}, {vector}"
        f" FROM {source} WHERE gallery_id = ? ORDER BY entries.id",
        (gallery_id,),
    )
    while rows := cursor.fetchmany(_CHUNK):
        yield _examined(rows, dim, _not_utf8(db, rows))


def _vectors_of(db: sqlite3.Connection, new: bool) -> tuple[str, str]:
    if new:
        return NEW_VECTOR, WITH_NEW_VECTORS
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'reembedded'").fetchone() is None:
        return "vectors.vector", _ENTRIES
    return VECTOR, _ENTRIES + _REEMBEDDED


def numbers_in_vectors(db: sqlite3.Connection, gallery_id: int, dim: int) -> int:
    """The numbers that more than half of a gallery's vectors have; `dim` where they agree with it or with nothing.

    The first vector is looked at alone, because reading the lengths of all takes seconds in a large gallery.
    """
    vector, source = _vectors_of(db, new=False)
    source += f" WHERE gallery_id = ? AND {vector} IS NOT NULL"
    first = db.execute(f"SELECT length({vector}) FROM {source} LIMIT 1", (gallery_id,)).fetchone()
    if first is None or first[0] == 4 * dim:
        return dim
    by_count = f"SELECT length({vector}), count(*) FROM {source} GROUP BY 1 ORDER BY 2 DESC"
    lengths = db.execute(by_count, (gallery_id,)).fetchall()
    size, count = lengths[0]
    agreed = size % 4 == 0 and 1 <= size // 4 <= MOST_NUMBERS and 2 * count > sum(each[1] for each in lengths)
    return size // 4 if agreed else dim


def examine_galleries(db: sqlite3.Connection) -> list[GalleryReport]:
    """What a start would set aside, of every gallery by name."""
    reports = []
    for row in gallery_rows(db):
        id_, name, fingerprint = row["id"], row["name"], row["fingerprint"]
        if name.startswith(gallery_records.UNFINISHED):
            continue  # the next start deletes it
        dim = numbers_in_vectors(db, id_, row["dim"])
        damage = examine_gallery(row, dim)
        if damage is not None and damage.repair is None:  # its vectors are not to be read
            count = count_entries(db, id_)
            reports.append(GalleryReport(id_, name, count, fingerprint, damage=damage))
            continue
        parts = list(map(_summary, examine_entries(db, id_, dim)))
        damaged = [one for _, some in parts for one in some]
        reports.append(GalleryReport(id_, name, sum(count for count, _ in parts), fingerprint, damaged, damage))
    return reports


def broken_pages(db: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong with the file itself; no service can serve such a database. Reads every page."""
    found = [row[0] for row in db.execute("PRAGMA integrity_check(20)")]
    return [] if found == ["ok"] else found


def _summary(part: Examined) -> tuple[int, list[Damage]]:
    return len(part.sound.ids) + len(part.damaged), part.damaged


def _not_utf8(db: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> dict[int, dict[str, str]]:
    """By entry the columns whose bytes are no text, and what was read of them."""
    columns = EntryColumns._make(zip(*rows, strict=True))
    found: dict[int, dict[str, str]] = {}
    texts = {"person_id": columns.persons, "camera_id": columns.cameras, "attributes": columns.attributes}
    for name, column in texts.items():
        if _REPLACED not in "".join(filter(None, column)):
            continue
        for id_, text in zip(columns.ids, column, strict=True):
            if text is not None and _REPLACED in text:  # which may also be what was sent
                same = db.execute(f"SELECT {name} = ? FROM entries WHERE id = ?", (text, id_)).fetchone()[0]
                if not same:
                    found.setdefault(id_, {})[name] = text
    return found


def _examined(rows: list[tuple[Any, ...]], dim: int, not_utf8: dict[int, dict[str, str]]) -> Examined:
    columns = EntryColumns._make(zip(*rows, strict=True))
    none = bytes(4 * dim)
    blobs = [blob if blob is not None and len(blob) == len(none) else none for blob in columns.vectors]
    vectors = np.frombuffer(b"".join(blobs), "<f4").reshape(len(rows), dim)
    good = has_unit_length(vectors)
    for place in _strange(columns):
        good[place] = False
    for id_ in not_utf8:
        good[columns.ids.index(id_)] = False
    if good.all():
        return Examined(columns, vectors, [])
    damaged = [
        _damage(EntryColumns._make(rows[place]), vectors[place], dim, not_utf8.get(rows[place][0], {}))
        for place in np.flatnonzero(~good)
    ]
    sound = [rows[place] for place in np.flatnonzero(good)]
    return Examined(EntryColumns._make(zip(*sound, strict=True)) if sound else EntryColumns(), vectors[good], damaged)


def _strange(columns: EntryColumns) -> Iterator[int]:
    """The places of entries with times or attributes that cannot be."""
    broken = {text for text in set(columns.attributes) if text != "{}" and not are_attributes(text)}
    captured = [at for at in columns.captured if at is not None] or [0]
    extremes = (min(columns.created), max(columns.created), min(captured), max(captured))
    if not broken and all(map(_is_time, extremes)):
        return
    for place, attributes in enumerate(columns.attributes):
        times = (columns.created[place], columns.captured[place] or 0)
        if attributes in broken or not all(map(_is_time, times)):
            yield place


def are_attributes(text: str) -> bool:
    """Whether this is a JSON object of scalars."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and not any(isinstance(value, dict | list) for value in found.values())


def _is_time(at: int) -> bool:
    return EARLIEST <= at <= LATEST


def _damage(row: Any, vector: Vectors, dim: int, not_utf8: dict[str, str]) -> Damage:
    """`row` has the members of `EntryColumns`, for one entry."""
    what: list[str] = []
    repair: dict[str, Any] | None = {}
    if row.vectors is None:
        what, repair = ["it has no vector"], None
    elif len(row.vectors) != 4 * dim:
        what, repair = [f"its vector has {len(row.vectors)} bytes and not {4 * dim}"], None
    elif not has_unit_length(vector[None])[0]:
        unit = normalize_rows(vector[None])
        length = float(np.linalg.norm(vector.astype(np.float64)))
        what = [f"its vector has length {length:.3g} and not 1"]
        repair = None if is_undefined(unit)[0] else {"vector": unit[0].astype("<f4").tobytes()}
    for name, at in (("captured_at", row.captured), ("created_at", row.created)):
        if at is not None and not _is_time(at):
            what.append(f"{name} is not within the years 1 to 9999")
            repair = None if repair is None else {**repair, name: min(max(at, EARLIEST), LATEST)}
    for name, text in not_utf8.items():
        what.append(f"{name} is not UTF-8")
        repair = None if repair is None else {**repair, name: text}
    if not are_attributes(row.attributes):
        what.append("its attributes are no JSON object of scalars")
        repair = None if repair is None else {**repair, "attributes": "{}"}
    return Damage(row.ids, "; ".join(what), repair)


def first_few(damaged: Sequence[Damage], most: int = 5) -> str:
    """The first of them as text for a log or a message."""
    few = [f"{one.entry_id} ({one.what})" for one in damaged[:most]]
    return ", ".join([*few, *(["..."] if len(damaged) > most else [])])
