"""The SQL of what requests with an Idempotency-Key were answered."""

import sqlite3
from dataclasses import dataclass

from service.schema import now

_KEPT = 7 * 86_400_000_000  # microseconds; nobody retries after that


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request with an Idempotency-Key was answered."""

    request: str
    status: int
    answer: bytes


def select_answered(db: sqlite3.Connection, gallery_id: int, key: str) -> Answered | None:
    """What the request with this Idempotency-Key was answered, if it was."""
    row = db.execute(
        "SELECT request, status, answer FROM idempotency WHERE gallery_id = ? AND key = ?", (gallery_id, key)
    ).fetchone()
    return None if row is None else Answered(*row)


def insert_answered(db: sqlite3.Connection, gallery_id: int, key: str, answered: Answered) -> None:
    """Remember an answer, and forget those nobody retries any more."""
    db.execute("DELETE FROM idempotency WHERE created_at < ?", (now() - _KEPT,))
    db.execute(
        "INSERT INTO idempotency (gallery_id, key, request, status, answer, created_at) VALUES (?, ?, ?, ?, ?, ?)",
        (gallery_id, key, answered.request, answered.status, answered.answer, now()),
    )
