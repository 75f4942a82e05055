"""SQL of the audit log, which is append-only."""

import sqlite3
from dataclasses import dataclass

from service.core.clock import now


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A record of the audit log. `gallery` and `detail` are empty if the action has none."""

    id: int
    at: int
    caller: str
    action: str
    gallery: str
    count: int
    detail: str


def insert_audit(db: sqlite3.Connection, who: str, action: str, gallery: str, count: int, *, detail: str = "") -> None:
    """Record an action of a caller on a gallery. `count` is the number of crops, or of refused calls."""
    db.execute(
        "INSERT INTO audit (at, who, action, gallery, count, detail) VALUES (?, ?, ?, ?, ?, ?)",
        (now(), who, action, gallery, count, detail),
    )


def select_audit(
    db: sqlite3.Connection,
    *,
    before: int,
    limit: int,
    since: int | None,
    until: int | None,
    caller: str | None,
    gallery: str | None,
    action: str | None,
) -> list[AuditRow]:
    """A page of the records with ids below `before`, newest first. Times are from `since` to before `until`."""
    filters = {
        "at >= :since": since,
        "at < :until": until,
        "who = :caller": caller,
        "gallery = :gallery": gallery,
        "action = :action": action,
    }
    conditions = ["id < :before", *(condition for condition, value in filters.items() if value is not None)]
    rows = db.execute(
        "SELECT id, at, who, action, gallery, count, detail FROM audit"
        f" WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT :limit",
        {
            "before": before,
            "limit": limit,
            "since": since,
            "until": until,
            "caller": caller,
            "gallery": gallery,
            "action": action,
        },
    )
    return [AuditRow(*row) for row in rows]
