"""SQL of the audit log, which is append-only."""

import sqlite3

from service.core.clock import now


def insert_audit(db: sqlite3.Connection, who: str, action: str, gallery: str, count: int, *, detail: str = "") -> None:
    """Record an action of a caller on a gallery. `count` is the number of crops, or of refused calls."""
    db.execute(
        "INSERT INTO audit (at, who, action, gallery, count, detail) VALUES (?, ?, ?, ?, ?, ?)",
        (now(), who, action, gallery, count, detail),
    )
