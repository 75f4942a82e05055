"""SQL of the stored results of requests with an Idempotency-Key."""

import sqlite3
from dataclasses import dataclass

from service.core.clock import now

RETENTION = 7 * 86_400_000_000  # microseconds during which a retry gets the stored result
_STATUS = 200  # a constant: the column `status` is no longer read


@dataclass(frozen=True, slots=True)
class IdempotentResponse:
    """The SHA-256 of a request with an Idempotency-Key, and the encoded result."""

    request: str
    answer: bytes


def select_response(db: sqlite3.Connection, gallery_id: int, key: str, *, oldest: int) -> IdempotentResponse | None:
    """The result stored under this Idempotency-Key at `oldest` (microseconds) or later, or None."""
    row = db.execute(
        "SELECT request, answer FROM idempotency WHERE gallery_id = ? AND key = ? AND created_at >= ?",
        (gallery_id, key, oldest),
    ).fetchone()
    return None if row is None else IdempotentResponse(*row)


def insert_response(db: sqlite3.Connection, gallery_id: int, key: str, response: IdempotentResponse) -> None:
    """Store a result. It replaces an expired one under the same key."""
    db.execute(
        "INSERT OR REPLACE INTO idempotency (gallery_id, key, request, status, answer, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (gallery_id, key, response.request, _STATUS, response.answer, now()),
    )


def delete_responses(db: sqlite3.Connection, *, oldest: int, limit: int) -> int:
    """Delete up to `limit` results stored before `oldest`, and return their number."""
    return db.execute(
        "DELETE FROM idempotency WHERE rowid IN (SELECT rowid FROM idempotency WHERE created_at < ? LIMIT ?)",
        (oldest, limit),
    ).rowcount
