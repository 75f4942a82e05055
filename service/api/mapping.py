"""Rows as the JSON of answers."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from service.core.clock import from_micros, to_micros
from service.core.models import EntryRow
from service.galleries.match_policy import MatchPolicy
from service.index.gallery_index import Hit, PersonHit
from service.storage.entry_integrity import are_attributes


def moment(microseconds: int | None) -> datetime | None:
    """Microseconds since 1970 as a time; of a damaged entry, the nearest one that there is."""
    return None if microseconds is None else from_micros(microseconds)


def microseconds(at: datetime | None) -> int | None:
    """A time as microseconds since 1970, exactly."""
    return None if at is None else to_micros(at)


def entry_view(row: EntryRow, image: bool) -> dict[str, Any]:
    """An entry as the API shows it; `image`: whether its picture is kept."""
    return {**_known(row), **_attributes(row.attributes), "created_at": moment(row.created_at), "image": image}


def _known(row: EntryRow) -> dict[str, Any]:
    return {
        "entry_id": row.id,
        "person_id": row.person_id,
        "camera_id": row.camera_id,
        "captured_at": moment(row.captured_at),
        "attributes": orjson.Fragment(row.attributes),
    }


def _attributes(text: str) -> dict[str, Any]:
    """As they are kept; of an entry whose attributes are damaged, none."""
    return {"attributes": orjson.Fragment(text if are_attributes(text) else "{}")}


def hit_view(hit: Hit, row: EntryRow, decision: MatchPolicy) -> dict[str, Any]:
    """A hit as the API shows it."""
    reranked = {} if hit.distance is None else {"distance": hit.distance}
    return {"score": hit.score, **reranked, **decision.classify(hit.score), **_known(row)}


def person_view(person: PersonHit, rows: Mapping[int, EntryRow], decision: MatchPolicy) -> dict[str, Any]:
    """A person that was found as the API shows it, with those hits that still are there."""
    return {
        "person_id": person.person_id,
        "score": person.score,
        "best": person.best,
        "mean": person.mean,
        **decision.classify(person.score),
        "entries": person.entries,
        "hits": [hit_view(hit, rows[hit.entry_id], decision) for hit in person.examples if hit.entry_id in rows],
    }
