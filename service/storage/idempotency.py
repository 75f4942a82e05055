"""The SQL of what became of requests with an Idempotency-Key."""

import sqlite3
from dataclasses import dataclass

from service.core.clock import now

KEPT = 7 * 86_400_000_000  # microseconds; nobody retries after that
_STATUS = 200  # of a column that nothing reads any more: what is kept is no answer yet


@dataclass(frozen=True, slots=True)
class IdempotentResponse:
    """What a request with an Idempotency-Key asked, as SHA-256, and what became of it."""

    request: str
    answer: bytes


def select_answered(db: sqlite3.Connection, gallery_id: int, key: str, *, oldest: int) -> IdempotentResponse | None:
    """Of the request with this Idempotency-Key, if there was one at `oldest` or later."""
    row = db.execute(
        "SELECT request, answer FROM idempotency WHERE gallery_id = ? AND key = ? AND created_at >= ?",
        (gallery_id, key, oldest),
    ).fetchone()
    return None if row is None else IdempotentResponse(*row)


def insert_answered(db: sqlite3.Connection, gallery_id: int, key: str, answered: IdempotentResponse) -> None:
    """Remember an answer, in place of one that is too old to be given again."""
    db.execute(
        "INSERT OR REPLACE INTO idempotency (gallery_id, key, request, status, answer, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (gallery_id, key, answered.request, _STATUS, answered.answer, now()),
    )


def delete_answered(db: sqlite3.Connection, *, oldest: int, most: int) -> int:
    """Forget answers that were given before `oldest`, at most so many; how many they were."""
    return db.execute(
        "DELETE FROM idempotency WHERE rowid IN (SELECT rowid FROM idempotency WHERE created_at < ? LIMIT ?)",
        (oldest, most),
    ).rowcount
