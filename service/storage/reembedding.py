"""The SQL of galleries on their way to another model, one function a statement.

An entry is done when it has a vector of that model; it cannot be done while it keeps no picture, or one that was tried
and cannot be used.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.core.types import Vectors
from service.core.vectors import require_unit_length


@dataclass(frozen=True, slots=True)
class ReEmbeddingRow:
    """That a gallery goes to a model, or last went. Times in microseconds.

    `max_dropped`: so many entries that cannot be done may be erased when all others are.
    """

    gallery_id: int
    fingerprint: str
    max_dropped: int
    finished_at: int | None = None
    dropped: int = 0
    overwritten: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """Of the entries of a gallery: all, those that are done, and those that cannot be."""

    entries: int
    done: int
    impossible: int


_CANNOT = (
    "FROM entries LEFT JOIN reembedded ON reembedded.entry_id = id LEFT JOIN crops ON crops.entry_id = id"
    " WHERE gallery_id = ? AND vector IS NULL AND (crops.entry_id IS NULL OR reembedded.entry_id IS NOT NULL)"
)


def upsert_reembedding(db: sqlite3.Connection, row: ReEmbeddingRow) -> None:
    """Write where a gallery goes, in place of what was known of it."""
    db.execute(
        "INSERT OR REPLACE INTO reembeddings (gallery_id, fingerprint, droppable, finished_at, dropped, overwritten)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (row.gallery_id, row.fingerprint, row.max_dropped, row.finished_at, row.dropped, row.overwritten),
    )


def update_overwritten(db: sqlite3.Connection, gallery_id: int, overwritten: bool) -> None:
    """Write whether nothing is left of what was dropped."""
    db.execute("UPDATE reembeddings SET overwritten = ? WHERE gallery_id = ?", (overwritten, gallery_id))


def select_reembedding(db: sqlite3.Connection, gallery_id: int) -> ReEmbeddingRow | None:
    """Where a gallery goes or last went, if anywhere."""
    columns = "gallery_id, fingerprint, droppable AS max_dropped, finished_at, dropped, overwritten"
    row = db.execute(f"SELECT {columns} FROM reembeddings WHERE gallery_id = ?", (gallery_id,)).fetchone()
    return None if row is None else ReEmbeddingRow(**{**row, "overwritten": bool(row["overwritten"])})


def select_begun(db: sqlite3.Connection) -> set[int]:
    """The ids of the galleries that go to a model, or went."""
    return {row[0] for row in db.execute("SELECT gallery_id FROM reembeddings")}


def forget_reembedding(db: sqlite3.Connection, gallery_id: int) -> None:
    """Give up where a gallery goes and what was done for it, unless it has arrived."""
    if db.execute("DELETE FROM reembeddings WHERE gallery_id = ? AND finished_at IS NULL", (gallery_id,)).rowcount:
        db.execute(
            "DELETE FROM reembedded WHERE entry_id IN (SELECT id FROM entries WHERE gallery_id = ?)", (gallery_id,)
        )


def retry_unusable(db: sqlite3.Connection, gallery_id: int) -> None:
    """Forget which pictures could not be used."""
    db.execute(
        "DELETE FROM reembedded WHERE vector IS NULL AND entry_id IN (SELECT id FROM entries WHERE gallery_id = ?)",
        (gallery_id,),
    )


def select_undone(db: sqlite3.Connection, gallery_id: int, *, after: int, limit: int) -> list[tuple[int, bytes]]:
    """A page of entries with ids over `after` that are not done and not tried, and their pictures."""
    rows = db.execute(
        "SELECT id, image FROM entries JOIN crops ON crops.entry_id = id"
        " LEFT JOIN reembedded ON reembedded.entry_id = id"
        " WHERE gallery_id = ? AND id > ? AND reembedded.entry_id IS NULL ORDER BY id LIMIT ?",
        (gallery_id, after, limit),
    )
    return [(row[0], row[1]) for row in rows]


def insert_done(db: sqlite3.Connection, ids: Sequence[int], vectors: Sequence[Vectors | None]) -> None:
    """Keep the new vectors of those of these entries that are still there; None where the picture cannot be used.

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


def count_all(db: sqlite3.Connection, gallery_id: int) -> Counts:
    """How far a gallery is."""
    entries, done = db.execute(
        "SELECT count(*), count(vector) FROM entries LEFT JOIN reembedded ON entry_id = id WHERE gallery_id = ?",
        (gallery_id,),
    ).fetchone()
    impossible = db.execute(f"SELECT count(*) {_CANNOT}", (gallery_id,)).fetchone()[0]
    return Counts(entries, done, impossible)


def delete_impossible(db: sqlite3.Connection, gallery_id: int) -> int:
    """Delete the entries that cannot be done; how many there were."""
    return db.execute(f"DELETE FROM entries WHERE id IN (SELECT id {_CANNOT})", (gallery_id,)).rowcount


def is_settled(db: sqlite3.Connection, gallery_id: int) -> bool:
    """Whether no new vector of a gallery waits to be moved."""
    found = db.execute(
        "SELECT 1 FROM entries JOIN reembedded ON entry_id = id WHERE gallery_id = ? LIMIT 1", (gallery_id,)
    )
    return found.fetchone() is None


def migrate_vectors(db: sqlite3.Connection, gallery_id: int, *, after: int, limit: int) -> int | None:
    """Move new vectors of entries over `after`, of a gallery that has arrived, to the place of the old ones; the last
    of these entries, None where none is left.
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
