"""SQL of re-embeddings of galleries with another model, one function per statement.

An entry is done when it has a vector of the new model. It is impossible if it has no stored picture, or if the new
model could not embed that picture.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.core.types import Vectors
from service.core.vectors import require_unit_length


@dataclass(frozen=True, slots=True)
class ReEmbeddingRow:
    """The running or last re-embedding of a gallery. Times in microseconds.

    At the end, up to `max_dropped` impossible entries may be deleted. `overwritten` says that no vector or picture of
    the dropped entries remains in the database files.
    """

    gallery_id: int
    fingerprint: str
    max_dropped: int
    finished_at: int | None = None
    dropped: int = 0
    overwritten: bool = False


@dataclass(frozen=True, slots=True)
class EntryCounts:
    """Numbers of entries of a gallery: all, done, and impossible."""

    entries: int
    done: int
    impossible: int


_IMPOSSIBLE = (
    "FROM entries LEFT JOIN reembedded ON reembedded.entry_id = id LEFT JOIN crops ON crops.entry_id = id"
    " WHERE gallery_id = ? AND vector IS NULL AND (crops.entry_id IS NULL OR reembedded.entry_id IS NOT NULL)"
)


def upsert_reembedding(db: sqlite3.Connection, row: ReEmbeddingRow) -> None:
    """Write a re-embedding. It replaces the previous one of this gallery."""
    db.execute(
        "INSERT OR REPLACE INTO reembeddings (gallery_id, fingerprint, droppable, finished_at, dropped, overwritten)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (row.gallery_id, row.fingerprint, row.max_dropped, row.finished_at, row.dropped, row.overwritten),
    )


def update_overwritten(db: sqlite3.Connection, gallery_id: int, overwritten: bool) -> None:
    """Write whether the dropped entries are overwritten in the database files."""
    db.execute("UPDATE reembeddings SET overwritten = ? WHERE gallery_id = ?", (overwritten, gallery_id))


def select_reembedding(db: sqlite3.Connection, gallery_id: int) -> ReEmbeddingRow | None:
    """The running or last re-embedding of a gallery, or None."""
    columns = "gallery_id, fingerprint, droppable AS max_dropped, finished_at, dropped, overwritten"
    row = db.execute(f"SELECT {columns} FROM reembeddings WHERE gallery_id = ?", (gallery_id,)).fetchone()
    return None if row is None else ReEmbeddingRow(**{**row, "overwritten": bool(row["overwritten"])})


def select_reembedding_ids(db: sqlite3.Connection) -> set[int]:
    """The ids of all galleries with a running or finished re-embedding."""
    return {row[0] for row in db.execute("SELECT gallery_id FROM reembeddings")}


def delete_unfinished(db: sqlite3.Connection, gallery_id: int) -> None:
    """Delete the re-embedding of a gallery with its new vectors, unless it is finished."""
    if db.execute("DELETE FROM reembeddings WHERE gallery_id = ? AND finished_at IS NULL", (gallery_id,)).rowcount:
        db.execute(
            "DELETE FROM reembedded WHERE entry_id IN (SELECT id FROM entries WHERE gallery_id = ?)", (gallery_id,)
        )


def reset_failed(db: sqlite3.Connection, gallery_id: int) -> None:
    """Mark the pictures that could not be embedded as pending."""
    db.execute(
        "DELETE FROM reembedded WHERE vector IS NULL AND entry_id IN (SELECT id FROM entries WHERE gallery_id = ?)",
        (gallery_id,),
    )


def select_pending(db: sqlite3.Connection, gallery_id: int, *, after: int, limit: int) -> list[tuple[int, bytes]]:
    """A page of the ids above `after` whose picture was not yet tried, with their pictures."""
    rows = db.execute(
        "SELECT id, image FROM entries JOIN crops ON crops.entry_id = id"
        " LEFT JOIN reembedded ON reembedded.entry_id = id"
        " WHERE gallery_id = ? AND id > ? AND reembedded.entry_id IS NULL ORDER BY id LIMIT ?",
        (gallery_id, after, limit),
    )
    return [(row[0], row[1]) for row in rows]


def insert_new_vectors(db: sqlite3.Connection, ids: Sequence[int], vectors: Sequence[Vectors | None]) -> None:
    """Store new vectors; None for a picture that could not be embedded. Skips entries that were deleted meanwhile.

    Raises ValueError for a vector that is not of unit length.
    """
    if new := [vector for vector in vectors if vector is not None]:
        require_unit_length(np.stack(new))
    db.executemany(
        "INSERT OR REPLACE INTO reembedded (entry_id, vector) SELECT id, ? FROM entries WHERE id = ?",
        [
            (None if vector is None else np.ascontiguousarray(vector, dtype="<f4"), id_)
            for id_, vector in zip(ids, vectors, strict=True)
        ],
    )


def count_entries(db: sqlite3.Connection, gallery_id: int) -> EntryCounts:
    """Count the entries of a gallery by their state."""
    entries, done = db.execute(
        "SELECT count(*), count(vector) FROM entries LEFT JOIN reembedded ON entry_id = id WHERE gallery_id = ?",
        (gallery_id,),
    ).fetchone()
    impossible = db.execute(f"SELECT count(*) {_IMPOSSIBLE}", (gallery_id,)).fetchone()[0]
    return EntryCounts(entries, done, impossible)


def delete_impossible(db: sqlite3.Connection, gallery_id: int) -> int:
    """Delete the impossible entries, and return their number."""
    return db.execute(f"DELETE FROM entries WHERE id IN (SELECT id {_IMPOSSIBLE})", (gallery_id,)).rowcount


def is_migrated(db: sqlite3.Connection, gallery_id: int) -> bool:
    """Whether all new vectors of a gallery are copied to `vectors`."""
    found = db.execute(
        "SELECT 1 FROM entries JOIN reembedded ON entry_id = id WHERE gallery_id = ? LIMIT 1", (gallery_id,)
    )
    return found.fetchone() is None


def migrate_vectors(db: sqlite3.Connection, gallery_id: int, *, after: int, limit: int) -> int | None:
    """Move up to `limit` new vectors, of entries above `after`, to `vectors`, if the re-embedding is finished.

    Returns the last id, or None if no vector is left to move.
    """
    found = db.execute(
        "SELECT id FROM entries JOIN reembedded ON entry_id = id JOIN reembeddings USING (gallery_id)"
        " WHERE gallery_id = ? AND finished_at IS NOT NULL AND id > ? ORDER BY id LIMIT ?",
        (gallery_id, after, limit),
    )
    ids = [(row[0],) for row in found]
    db.executemany(
        "UPDATE vectors SET vector = reembedded.vector FROM reembedded"
        " WHERE vectors.entry_id = ? AND reembedded.entry_id = vectors.entry_id",
        ids,
    )
    db.executemany("DELETE FROM reembedded WHERE entry_id = ?", ids)
    return ids[-1][0] if ids else None
