"""Results of use cases as the JSON of responses, and times and durations between the two."""

import base64
from datetime import datetime
from typing import Any

import orjson

from pan_reid.schemas import ExportedGallery, GalleryCreate, GalleryUpdate
from service.core.clock import from_micros, to_micros
from service.core.models import EntryRow
from service.core.types import Vectors
from service.galleries.commands import DAY
from service.galleries.query.match_policy import MatchPolicy
from service.galleries.results import (
    AuditPage,
    Comparison,
    Embeddings,
    Entry,
    Erasure,
    Explanations,
    FoundEntry,
    FoundPerson,
    GalleryInfo,
    IndexStatus,
    ItemFailure,
    ReEmbedding,
    SearchResult,
)


def optional_time(microseconds: int | None) -> datetime | None:
    """Microseconds since 1970 as a time; of a damaged entry, the nearest valid time."""
    return None if microseconds is None else from_micros(microseconds)


def optional_micros(at: datetime | None) -> int | None:
    """A time as microseconds since 1970."""
    return None if at is None else to_micros(at)


def retention_of(wanted: GalleryCreate | GalleryUpdate | ExportedGallery) -> int | None:
    """The retention in microseconds."""
    return None if wanted.retention_days is None else round(wanted.retention_days * DAY)


def retention_days(retention: int | None) -> float | None:
    """Microseconds as days."""
    return None if retention is None else retention / DAY


def gallery_view(gallery: GalleryInfo) -> dict[str, Any]:
    """The schema Gallery."""
    row = gallery.row
    return {
        "name": row.name,
        "purpose": row.purpose,
        "index": row.index_kind,
        "index_now": _index_view(gallery.index),
        "fingerprint": row.fingerprint,
        "dim": row.dim,
        "created_at": from_micros(row.created_at),
        "retention_days": retention_days(row.retention),
        "keep_crops": row.keep_crops,
        "searchable": gallery.is_current,
        "entries": gallery.entries,
        "set_aside": gallery.set_aside,
        "persons": gallery.persons,
    }


def _index_view(index: IndexStatus) -> dict[str, Any]:
    return {
        "kind": index.kind,
        "entries": index.entries,
        "exact": index.exact,
        "recall": index.recall,
        "recall_recent": index.recall_recent,
        "queries": index.queries,
        "queries_recent": index.queries_recent,
        "measured_at": optional_time(index.measured_at),
    }


def receipt_view(gallery: str, erasure: Erasure) -> dict[str, Any]:
    """The schema ErasureReceipt."""
    return {
        "gallery": gallery,
        "entries": erasure.entries,
        "overwritten": erasure.overwritten,
        "erased_at": from_micros(erasure.erased_at),
    }


def re_embedding_view(progress: ReEmbedding) -> dict[str, Any]:
    """The schema ReEmbedding."""
    return {
        "gallery": progress.gallery,
        "state": progress.state,
        "fingerprint": progress.fingerprint,
        "entries": progress.entries,
        "done": progress.done,
        "without_crop": progress.without_crop,
        "problem": progress.problem,
        "erased": None if progress.erased is None else receipt_view(progress.gallery, progress.erased),
    }


def entry_view(entry: Entry) -> dict[str, Any]:
    """The schema Entry."""
    return {
        **_metadata_view(entry.row),
        "created_at": from_micros(entry.row.created_at),
        "image": entry.has_image,
    }


def _metadata_view(row: EntryRow) -> dict[str, Any]:
    return {
        "entry_id": row.id,
        "person_id": row.person_id,
        "camera_id": row.camera_id,
        "captured_at": optional_time(row.captured_at),
        "attributes": orjson.Fragment(row.attributes),
    }


def audit_view(page: AuditPage) -> dict[str, Any]:
    """The schema AuditPage."""
    return {
        "records": [
            {
                "id": row.id,
                "at": from_micros(row.at),
                "caller": row.caller,
                "action": row.action,
                "gallery": row.gallery or None,
                "count": row.count,
                "detail": row.detail or None,
            }
            for row in page.records
        ],
        "next_cursor": None if page.next_before is None else str(page.next_before),
    }


def search_view(result: SearchResult) -> dict[str, Any]:
    """The schema SearchAnswer."""
    policy = result.policy
    views = [
        _person_view(one, policy) if isinstance(one, FoundPerson) else hit_view(one, policy) for one in result.found
    ]
    return {
        "gallery": result.gallery,
        "fused": result.fused,
        "persons" if result.is_grouped else "hits": views,
        **_decision_view(policy),
    }


def hit_view(found: FoundEntry, policy: MatchPolicy) -> dict[str, Any]:
    """The schema Hit."""
    distance = {} if found.distance is None else {"distance": found.distance}
    return {"score": found.score, **distance, **_scored_view(found.score, policy), **_metadata_view(found.entry)}


def _person_view(person: FoundPerson, policy: MatchPolicy) -> dict[str, Any]:
    return {
        "person_id": person.person_id,
        "score": person.score,
        "best": person.best,
        "mean": person.mean,
        **_scored_view(person.score, policy),
        "entries": person.entries,
        "hits": [hit_view(one, policy) for one in person.examples],
    }


def _scored_view(cosine: float, policy: MatchPolicy) -> dict[str, Any]:
    """Members `probability` and `verdict`, as far as they are known."""
    classification = policy.classify(cosine)
    members = {"probability": classification.probability, "verdict": classification.verdict}
    return {name: value for name, value in members.items() if value is not None}


def _decision_view(policy: MatchPolicy) -> dict[str, Any]:
    """The member `decision`, if a verdict was requested."""
    if policy.threshold is None:
        return {}
    decision: dict[str, Any] = {"threshold": policy.threshold}
    if policy.calibration is not None and policy.false_positive_rate is not None:
        decision |= {
            "false_positive_rate": policy.false_positive_rate,
            "calibrated_on": policy.calibration.data,
        }
    return {"decision": decision}


def comparison_view(comparison: Comparison) -> dict[str, Any]:
    """The schema Comparison."""
    return {
        "similarity": comparison.similarity,
        **_scored_view(comparison.similarity, comparison.policy),
        "best": {"a": comparison.best_a, "b": comparison.best_b, "similarity": comparison.best_similarity},
        **_decision_view(comparison.policy),
    }


def embeddings_view(result: Embeddings, encoding: str) -> dict[str, Any]:
    """The schema Embeddings."""
    return {
        "fingerprint": result.fingerprint,
        "dim": result.dim,
        "embeddings": [
            _failure_view(index, one)
            if isinstance(one, ItemFailure)
            else {"index": index, "embedding": _numbers(one, encoding)}
            for index, one in enumerate(result.outcomes)
        ],
    }


def explanations_view(result: Explanations, encoding: str) -> dict[str, Any]:
    """The schema Explanations."""
    return {
        "fingerprint": result.fingerprint,
        "explanations": [
            _failure_view(index, one)
            if isinstance(one, ItemFailure)
            else {
                "index": index,
                "maps": [
                    {"name": name, "shape": values.shape, "values": _numbers(values, encoding)}
                    for name, values in one.items()
                ],
            }
            for index, one in enumerate(result.outcomes)
        ],
    }


def _failure_view(index: int, failure: ItemFailure) -> dict[str, Any]:
    return {"index": index, "error": {"code": failure.code, "detail": failure.detail}}


def _numbers(values: Vectors, encoding: str) -> Any:
    """An array as it is, or as base64 of float32 in little-endian order."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode() if encoding == "base64" else values
