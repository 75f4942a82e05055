"""Enrolment of any number of crops: as many requests as it takes, each sent again until it is answered.

A request of its own for each part, because HTTP clients and proxies rarely read an answer before they have sent all.
"""

import base64
import uuid
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import orjson

from service.client.call import Call, gallery_path
from service.client.calls import Crop, Embedded
from service.client.errors import ClientError
from service.schemas import EnrolEnd, EnrolResult

_LINES = 1000  # of a request
_BYTES = 8 * 2**20

Answered = tuple[Sequence[EnrolResult], ClientError | None]


def enrolments(gallery: str, crops: Iterable[Crop | Embedded]) -> Iterator[Call[Answered]]:
    """Calls that enrol all of them, one after another. Each answers results, and what ended it before its time."""
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


def _call(gallery: str, first: int, lines: list[bytes]) -> Call[Answered]:
    path, read = gallery_path(gallery, "entries", "stream"), partial(_read, first)
    return Call("POST", path, read, lines=b"".join(lines), accept="application/x-ndjson", key=uuid.uuid4().hex)


def _line(crop: Crop | Embedded) -> bytes:
    if isinstance(crop, Crop):
        item = {"image": base64.b64encode(crop.image).decode()}
    else:
        item = {"vector": base64.b64encode(np.asarray(crop.vector, "<f4").tobytes()).decode()}
    known = crop.info.model_dump(exclude_unset=True)
    return orjson.dumps(item | known, option=orjson.OPT_APPEND_NEWLINE)


def _read(first: int, data: bytes) -> Answered:
    *lines, last = data.splitlines()
    results = [EnrolResult(**(result | {"index": first + result["index"]})) for result in map(orjson.loads, lines)]
    end = EnrolEnd.model_validate_json(last)
    if end.error is None:
        return results, None
    return results, ClientError(f"{end.error.detail} ({end.error.code}); {first + len(results)} crops were answered")
