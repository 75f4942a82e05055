"""SQL of stored pictures, one function per statement. A picture is deleted with its entry."""

import sqlite3
from collections.abc import Sequence


def insert_crops(db: sqlite3.Connection, ids: Sequence[int], images: Sequence[bytes | None]) -> None:
    """Store the pictures of these entries; None for an entry without one."""
    db.executemany(
        "INSERT INTO crops (entry_id, image) VALUES (?, ?)",
        [(id_, image) for id_, image in zip(ids, images, strict=True) if image is not None],
    )


def select_crop(db: sqlite3.Connection, entry_id: int) -> bytes | None:
    """The picture of an entry, or None."""
    row = db.execute("SELECT image FROM crops WHERE entry_id = ?", (entry_id,)).fetchone()
    return None if row is None else row[0]


def select_ids_with_crop(db: sqlite3.Connection, ids: Sequence[int]) -> set[int]:
    """Those of at most 10,000 entries that have a stored picture."""
    rows = db.execute(f"SELECT entry_id FROM crops WHERE entry_id IN ({','.join('?' * len(ids))})", ids)
    return {row[0] for row in rows}


def delete_crops(db: sqlite3.Connection, gallery_id: int) -> int:
    """Delete every picture of a gallery, and return their number."""
    return db.execute(
        "DELETE FROM crops WHERE entry_id IN (SELECT id FROM entries WHERE gallery_id = ?)", (gallery_id,)
    ).rowcount
