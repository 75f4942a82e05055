"""Enrolment of any number of crops in several requests, each with its own idempotency key.

One long stream would depend on proxies that forward the response before the request ends, and few do.
"""

import base64
import uuid
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from pydantic_core import from_json, to_json

from pan_reid.endpoints import Crop, VectorCrop
from pan_reid.errors import ClientError
from pan_reid.request import ApiRequest, gallery_path
from pan_reid.schemas import EnrolResult, EnrolSummary
from pan_reid.vectors import encode_vector

_LINES = 1000  # per request
_BYTES = 8 * 2**20

ChunkResult = tuple[Sequence[EnrolResult], ClientError | None]


def enrolments(gallery: str, crops: Iterable[Crop | VectorCrop]) -> Iterator[ApiRequest[ChunkResult]]:
    """The requests that enrol all crops. The response of each has results, and the error that ended it early."""
    first, lines, size = 0, list[bytes](), 0
    for crop in crops:
        line = _line(crop)
        if lines and (len(lines) == _LINES or size + len(line) > _BYTES):
            yield _call(gallery, first, lines)
            first, lines, size = first + len(lines), [], 0
        lines.append(line)
        size += len(line)
    if lines:
        yield _call(gallery, first, lines)


def _call(gallery: str, first: int, lines: list[bytes]) -> ApiRequest[ChunkResult]:
    path, read = gallery_path(gallery, "entries", "stream"), partial(_read, first)
    return ApiRequest("POST", path, read, lines=b"".join(lines), accept="application/x-ndjson", key=uuid.uuid4().hex)


def _line(crop: Crop | VectorCrop) -> bytes:
    if isinstance(crop, Crop):
        item = {"image": base64.b64encode(crop.image).decode()}
    else:
        item = {"vector": encode_vector(crop.vector)}
    known = crop.info.model_dump(exclude_unset=True)
    return to_json(item | known) + b"\n"


def _read(first: int, data: bytes) -> ChunkResult:
    *lines, last = data.splitlines()
    results = [EnrolResult(**(result | {"index": first + result["index"]})) for result in map(from_json, lines)]
    end = EnrolSummary.model_validate_json(last)
    if end.error is None:
        return results, None
    return results, ClientError(f"{end.error.detail} ({end.error.code}); {first + len(results)} crops have a result")
