"""SQL of galleries and of their index snapshots, one function per statement."""

import sqlite3
from dataclasses import dataclass

from pan_reid.schemas import IndexKind
from service.core.clock import now
from service.storage.entries import count_entries

IMPORT_PREFIX = "import:"  # of the name of a gallery during its import; the API accepts no such name


@dataclass(frozen=True, slots=True)
class GalleryRow:
    """A gallery. `fingerprint` identifies the model of its vectors, `dim` is their dimension."""

    id: int
    name: str
    purpose: str
    index_kind: IndexKind
    fingerprint: str
    dim: int
    created_at: int
    retention: int | None  # microseconds
    keep_crops: bool


def insert_gallery(
    db: sqlite3.Connection,
    name: str,
    purpose: str,
    index_kind: IndexKind,
    fingerprint: str,
    dim: int,
    retention: int | None = None,
    keep_crops: bool = False,
) -> GalleryRow:
    """Insert a gallery. Raises sqlite3.IntegrityError if the name is taken."""
    values = (name, purpose, index_kind, fingerprint, dim, now(), retention, keep_crops)
    cursor = db.execute(
        "INSERT INTO galleries (name, purpose, index_kind, fingerprint, dim, created_at, retention, keep_crops)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        values,
    )
    assert cursor.lastrowid is not None
    return GalleryRow(cursor.lastrowid, *values)


def select_galleries(db: sqlite3.Connection) -> list[GalleryRow]:
    """All galleries, sorted by name."""
    return [_gallery(row) for row in db.execute("SELECT * FROM galleries ORDER BY name")]


def select_gallery(db: sqlite3.Connection, gallery_id: int) -> GalleryRow | None:
    """A gallery, or None if it was deleted."""
    row = db.execute("SELECT * FROM galleries WHERE id = ?", (gallery_id,)).fetchone()
    return None if row is None else _gallery(row)


def _gallery(row: sqlite3.Row) -> GalleryRow:
    return GalleryRow(**{**row, "keep_crops": bool(row["keep_crops"])})


def update_gallery(db: sqlite3.Connection, row: GalleryRow) -> None:
    """Write the settings of a gallery that a client may change."""
    db.execute(
        "UPDATE galleries SET purpose = ?, index_kind = ?, retention = ?, keep_crops = ? WHERE id = ?",
        (row.purpose, row.index_kind, row.retention, row.keep_crops, row.id),
    )


def set_model(db: sqlite3.Connection, row: GalleryRow) -> None:
    """Write the model of a gallery's vectors, and invalidate the snapshot of its index."""
    db.execute("UPDATE galleries SET fingerprint = ?, dim = ? WHERE id = ?", (row.fingerprint, row.dim, row.id))
    db.execute("DELETE FROM snapshots WHERE gallery_id = ?", (row.id,))


def rename_gallery(db: sqlite3.Connection, gallery_id: int, name: str) -> None:
    """Rename a gallery. Raises sqlite3.IntegrityError if the name is taken."""
    db.execute("UPDATE galleries SET name = ? WHERE id = ?", (name, gallery_id))


def delete_gallery(db: sqlite3.Connection, gallery_id: int) -> int:
    """Delete a gallery with its entries, and return their number."""
    count = count_entries(db, gallery_id)
    db.execute("DELETE FROM galleries WHERE id = ?", (gallery_id,))
    return count


def select_snapshot(db: sqlite3.Connection, gallery_id: int) -> tuple[int, bytes] | None:
    """Sequence number and SHA-256 of the valid snapshot file of a gallery's index, or None."""
    row = db.execute("SELECT sequence, digest FROM snapshots WHERE gallery_id = ?", (gallery_id,)).fetchone()
    return None if row is None else (row[0], row[1])


def select_snapshots(db: sqlite3.Connection) -> list[tuple[int, int]]:
    """Gallery id and sequence number of every valid snapshot file."""
    return [(row[0], row[1]) for row in db.execute("SELECT gallery_id, sequence FROM snapshots")]


def upsert_snapshot(db: sqlite3.Connection, gallery_id: int, sequence: int, digest: bytes) -> None:
    """Make a snapshot file the valid one. Does nothing if the gallery was deleted."""
    db.execute(
        "INSERT INTO snapshots SELECT id, ?, ? FROM galleries WHERE id = ?"
        " ON CONFLICT (gallery_id) DO UPDATE SET sequence = excluded.sequence, digest = excluded.digest",
        (sequence, digest, gallery_id),
    )


def delete_snapshot(db: sqlite3.Connection, gallery_id: int) -> None:
    """Invalidate the snapshot of a gallery's index."""
    db.execute("DELETE FROM snapshots WHERE gallery_id = ?", (gallery_id,))
