"""SQL of entries and their vectors, one function per statement: rows in, dataclasses out, no policy."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.core.clock import now
from service.core.models import EntryMetadata, EntryRow
from service.core.types import Vectors
from service.core.vectors import has_unit_length, require_unit_length


@dataclass(frozen=True, slots=True)
class PersonRow:
    """A person of a gallery, with the number of their entries and of distinct cameras."""

    person_id: str
    entries: int
    cameras: int


_ENTRY = "id, person_id, camera_id, captured_at, attributes, created_at"
# After a re-embedding, the current vectors of a gallery are in `reembedded` until they are copied to `vectors`.
VECTOR = "coalesce(reembedded.vector, vectors.vector)"
WITH_VECTORS = (
    "entries JOIN vectors ON vectors.entry_id = entries.id"
    " LEFT JOIN reembedded ON reembedded.entry_id = entries.id AND EXISTS"
    " (SELECT 1 FROM reembeddings WHERE reembeddings.gallery_id = entries.gallery_id AND finished_at IS NOT NULL)"
)
# During a re-embedding, the vectors of the new model.
NEW_VECTOR = "reembedded.vector"
WITH_NEW_VECTORS = "entries JOIN reembedded ON reembedded.entry_id = entries.id AND reembedded.vector IS NOT NULL"


def insert_entries(
    db: sqlite3.Connection, gallery_id: int, entries: Sequence[EntryMetadata], vectors: Vectors
) -> list[int]:
    """Insert entries with their (len(entries), D) float32 vectors, and return their ids, ascending.

    An imported entry (EntryRow) gets a new id and keeps `created_at`. Raises ValueError for a vector that is not of
    unit length; the caller must normalise it.
    """
    require_unit_length(vectors)
    created_at = now()
    # There is only one writer, so the ids of one call are consecutive.
    first = 1 + last_assigned_id(db)
    ids = list(range(first, first + len(entries)))
    db.executemany(
        "INSERT INTO entries (id, gallery_id, person_id, camera_id, captured_at, attributes, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (
                id_,
                gallery_id,
                entry.person_id,
                entry.camera_id,
                entry.captured_at,
                entry.attributes,
                entry.created_at if isinstance(entry, EntryRow) else created_at,
            )
            for id_, entry in zip(ids, entries, strict=True)
        ],
    )
    little_endian = np.ascontiguousarray(vectors, dtype="<f4")
    db.executemany("INSERT INTO vectors (entry_id, vector) VALUES (?, ?)", zip(ids, little_endian, strict=True))
    return ids


def select_entries(
    db: sqlite3.Connection, gallery_id: int, *, after: int, limit: int, person_id: str | None, camera_id: str | None
) -> list[EntryRow]:
    """A page of the entries with ids above `after`, in the order of enrolment."""
    rows = db.execute(
        f"SELECT {_ENTRY} FROM entries WHERE gallery_id = :gallery AND id > :after"
        + (" AND person_id = :person" if person_id is not None else "")
        + (" AND camera_id = :camera" if camera_id is not None else "")
        + " ORDER BY id LIMIT :limit",
        {"gallery": gallery_id, "after": after, "person": person_id, "camera": camera_id, "limit": limit},
    )
    return [EntryRow(*row) for row in rows]


def select_entries_by_id(db: sqlite3.Connection, gallery_id: int, ids: Sequence[int]) -> dict[int, EntryRow]:
    """The entries among these ids that exist, by id."""
    found: dict[int, EntryRow] = {}
    for start in range(0, len(ids), 10_000):  # SQLite takes at most 32,766 parameters
        chunk = ids[start : start + 10_000]
        marks = ",".join("?" * len(chunk))
        rows = db.execute(
            f"SELECT {_ENTRY} FROM entries WHERE id IN ({marks}) AND gallery_id = ?", (*chunk, gallery_id)
        )
        found.update((row[0], EntryRow(*row)) for row in rows)
    return found


def select_vectors(db: sqlite3.Connection, ids: Sequence[int], dim: int) -> dict[int, Vectors]:
    """The (D,) unit vectors of at most 10,000 entries, by id, without missing and damaged ones."""
    rows = db.execute(
        f"SELECT entries.id, {VECTOR} FROM {WITH_VECTORS} WHERE entries.id IN ({','.join('?' * len(ids))})", ids
    )
    found = {row[0]: np.frombuffer(row[1], dtype="<f4") for row in rows if len(row[1]) == 4 * dim}
    return {id_: vector for id_, vector in found.items() if has_unit_length(vector[None])[0]}


def update_entry(db: sqlite3.Connection, gallery_id: int, entry: EntryRow) -> None:
    """Write the metadata of an entry that a client may change."""
    db.execute(
        "UPDATE entries SET person_id = ?, camera_id = ?, captured_at = ?, attributes = ?"
        " WHERE id = ? AND gallery_id = ?",
        (entry.person_id, entry.camera_id, entry.captured_at, entry.attributes, entry.id, gallery_id),
    )


def delete_entry(db: sqlite3.Connection, gallery_id: int, entry_id: int) -> bool:
    """Delete an entry; False if it does not exist."""
    cursor = db.execute("DELETE FROM entries WHERE id = ? AND gallery_id = ?", (entry_id, gallery_id))
    return cursor.rowcount == 1


def delete_person(db: sqlite3.Connection, gallery_id: int, person_id: str) -> list[int]:
    """Delete all entries of a person, and return their ids."""
    where = "WHERE gallery_id = ? AND person_id = ?"
    ids = [row[0] for row in db.execute(f"SELECT id FROM entries {where}", (gallery_id, person_id))]
    db.execute(f"DELETE FROM entries {where}", (gallery_id, person_id))
    return ids


def delete_expired(db: sqlite3.Connection, gallery_id: int, until: int, limit: int) -> list[int]:
    """Delete up to `limit` entries whose retention period began by `until`, oldest first, and return their ids."""
    found = db.execute(
        "SELECT id FROM entries WHERE gallery_id = ? AND since <= ? ORDER BY since LIMIT ?", (gallery_id, until, limit)
    )
    ids = [row[0] for row in found]
    db.executemany("DELETE FROM entries WHERE id = ?", [(id_,) for id_ in ids])
    return ids


def select_persons(db: sqlite3.Connection, gallery_id: int, *, after: str, limit: int) -> list[PersonRow]:
    """A page of the persons with ids above `after`, sorted by id."""
    rows = db.execute(
        "SELECT person_id, count(*), count(DISTINCT camera_id) FROM entries"
        " WHERE gallery_id = ? AND person_id > ? GROUP BY person_id ORDER BY person_id LIMIT ?",
        (gallery_id, after, limit),
    )
    return [PersonRow(*row) for row in rows]


def count_entries(db: sqlite3.Connection, gallery_id: int) -> int:
    """The number of entries of a gallery."""
    count: int = db.execute("SELECT count(*) FROM entries WHERE gallery_id = ?", (gallery_id,)).fetchone()[0]
    return count


def max_entry_id(db: sqlite3.Connection, gallery_id: int) -> int:
    """The greatest entry id of a gallery, 0 if it is empty."""
    row = db.execute("SELECT coalesce(max(id), 0) FROM entries WHERE gallery_id = ?", (gallery_id,)).fetchone()
    return int(row[0])


def last_assigned_id(db: sqlite3.Connection) -> int:
    """The greatest entry id that was ever assigned, in any gallery."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entries'").fetchone()
    return row[0] if row else 0


@dataclass(frozen=True, slots=True)
class ExportedRow:
    """Everything stored of a crop: metadata, the bytes of its float32 vector, and its picture, if any."""

    row: EntryRow
    vector: bytes
    image: bytes | None


def select_for_export(
    db: sqlite3.Connection, gallery_id: int, *, after: int, last: int, limit: int, size: int
) -> list[ExportedRow]:
    """A page of the entries with `after` < id <= `last`: up to `limit` rows, or the first that exceed `size` bytes."""
    cursor = db.execute(
        f"SELECT {_ENTRY}, {VECTOR}, image FROM {WITH_VECTORS}"
        " LEFT JOIN crops ON crops.entry_id = id WHERE gallery_id = ? AND id > ? AND id <= ? ORDER BY id LIMIT ?",
        (gallery_id, after, last, limit),
    )
    page: list[ExportedRow] = []
    for *known, vector, image in cursor:
        page.append(ExportedRow(EntryRow(*known), vector, image))
        size -= len(vector) + len(image or b"")
        if size <= 0:
            break
    return page
