"""Rows as the JSON of answers."""

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from service.decision import Decision
from service.gallery import Hit
from service.records import EntryRow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(microseconds: int | None) -> datetime | None:
    """Microseconds since 1970 as a time."""
    return None if microseconds is None else _EPOCH + timedelta(microseconds=microseconds)


def microseconds(at: datetime | None) -> int | None:
    """A time as microseconds since 1970, exactly."""
    return None if at is None else (at - _EPOCH) // timedelta(microseconds=1)


def entry_view(row: EntryRow) -> dict[str, Any]:
    """An entry as the API shows it."""
    return {
        "entry_id": row.id,
        "person_id": row.person_id,
        "camera_id": row.camera_id,
        "captured_at": moment(row.captured_at),
        "attributes": orjson.Fragment(row.attributes),
        "created_at": moment(row.created_at),
    }


def hit_view(hit: Hit, row: EntryRow, decision: Decision) -> dict[str, Any]:
    """A hit as the API shows it."""
    view = entry_view(row)
    del view["created_at"]
    return {"score": hit.score, **decision.judge(hit.score), **view}
