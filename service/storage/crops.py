"""The SQL of kept pictures, one function a statement. A picture goes with its entry."""

import sqlite3
from collections.abc import Sequence


def insert_crops(db: sqlite3.Connection, ids: Sequence[int], images: Sequence[bytes | None]) -> None:
    """Keep the pictures of these entries; None where there is none."""
    db.executemany(
        "INSERT INTO crops (entry_id, image) VALUES (?, ?)",
        [(id_, image) for id_, image in zip(ids, images, strict=True) if image is not None],
    )


def select_crop(db: sqlite3.Connection, entry_id: int) -> bytes | None:
    """The picture of an entry, where one is kept."""
    row = db.execute("SELECT image FROM crops WHERE entry_id = ?", (entry_id,)).fetchone()
    return None if row is None else row[0]


def select_kept(db: sqlite3.Connection, ids: Sequence[int]) -> set[int]:
    """Those of these entries whose picture is kept. At most 10,000."""
    rows = db.execute(f"SELECT entry_id FROM crops WHERE entry_id IN ({','.join('?' * len(ids))})", ids)
    return {row[0] for row in rows}


def delete_crops(db: sqlite3.Connection, gallery_id: int) -> int:
    """Delete every picture of a gallery; how many there were."""
    return db.execute(
        "DELETE FROM crops WHERE entry_id IN (SELECT id FROM entries WHERE gallery_id = ?)", (gallery_id,)
    ).rowcount
