"""Request bodies: multipart files, one raw image, or JSON. Every limit holds while the body arrives.

Bodies are kept in memory; nothing is written to the disk.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from service.api.deadline import deadline_of
from service.api.parsing.json_text import VALUES_PER_ENTRY, parse_json
from service.api.parsing.multipart import MultipartReader, add_member
from service.core.errors import BodyTooLarge, InvalidRequest, UnsupportedBody
from service.core.settings import Settings
from service.core.types import Image

T = TypeVar("T")

_SMALL_BODY = 256 * 2**10  # bytes of a call without images and vectors
_LARGE_BODY = 64 * 2**10  # bytes from which on parsing would delay other requests


@dataclass(slots=True)
class Body:
    """The content of a request: images, and members by name (of JSON, form fields or the query string)."""

    images: list[Image] = field(default_factory=list)
    members: dict[str, Any] = field(default_factory=dict)
    texts: frozenset[str] = frozenset()  # the members that are texts, of a form or the query
    is_json: bool = False
    is_large: bool = False  # it takes long to parse or to hash
    names: list[str] = field(default_factory=list)  # of the multipart parts that are images

    def digest(self) -> str:
        """SHA-256 of the content. It does not depend on the framing of the body."""
        try:
            digest = hashlib.sha256(orjson.dumps(self.members, option=orjson.OPT_SORT_KEYS))
        except TypeError:  # orjson writes fewer levels than it reads
            raise InvalidRequest("the body is JSON of more than 250 levels; no call accepts that many") from None
        for image in self.images:
            digest.update(hashlib.sha256(image if isinstance(image, bytes) else str(image).encode()).digest())
        return digest.hexdigest()


async def run_off_loop(body: Body, work: Callable[[], T]) -> T:
    """The result of work on a body, on a thread if it would delay other requests."""
    return await asyncio.to_thread(work) if body.is_large else work()


async def read_body(request: Request, settings: Settings) -> Body:
    """Read the body by its Content-Type.

    Raises UnsupportedBody, BodyTooLarge, InvalidRequest, or DeadlineExceeded.
    """
    return await _before_deadline(request, _read_body(request, settings))


async def read_json(request: Request, settings: Settings) -> dict[str, Any]:
    """The JSON object of a call without images and vectors. Raises as `read_body`."""
    if parse_options_header(request.headers.get("content-type"))[0] != b"application/json":
        raise UnsupportedBody("this call accepts application/json")
    data = await _before_deadline(request, _joined(_limited(request, min(_SMALL_BODY, settings.max_body))))
    return _parse_object(data, VALUES_PER_ENTRY)


async def _before_deadline(request: Request, reading: Coroutine[Any, Any, T]) -> T:
    deadline = deadline_of(request)
    async with deadline.enforced(f"the body did not arrive within {deadline.seconds:g} s; send less in one request"):
        return await reading


async def _read_body(request: Request, settings: Settings) -> Body:
    content_type, parameters = parse_options_header(request.headers.get("content-type"))
    query = _query(request)
    if content_type == b"application/json":
        data = await _joined(_limited(request, settings.max_body))
        is_large = len(data) > _LARGE_BODY
        max_values = settings.max_images * VALUES_PER_ENTRY
        members = (
            await asyncio.to_thread(_parse_object, data, max_values) if is_large else _parse_object(data, max_values)
        )
        return Body(members=_merged(query, members), texts=frozenset(query), is_json=True, is_large=is_large)
    if content_type == b"multipart/form-data":
        parts = MultipartReader(settings)
        await parts.read(_limited(request, settings.max_body), parameters.get(b"boundary", b""))
        members = _merged(query, parts.fields)
        is_large = parts.field_bytes > _LARGE_BODY
        return Body(parts.images, members, frozenset(members), is_large=is_large, names=parts.names)
    if content_type.startswith(b"image/") or content_type == b"application/octet-stream":
        image = await _joined(_limited(request, min(settings.images.max_bytes, settings.max_body)))
        return Body([image], query, frozenset(query))
    raise UnsupportedBody(
        f"Content-Type {content_type.decode('latin-1') or 'is missing'}; "
        "send multipart/form-data, image/* or application/json"
    )


async def _joined(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


def _query(request: Request) -> dict[str, Any]:
    query: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        add_member(query, name, value)
    return query


async def _limited(request: Request, limit: int) -> AsyncIterator[bytes]:
    length = request.headers.get("content-length", "")
    total = int(length) if length.isdecimal() else 0
    if total > limit:
        raise BodyTooLarge(f"the body has {total:,} bytes; at most {limit:,} are accepted")
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limit:
            raise BodyTooLarge(f"the body has more than {limit:,} bytes")
        yield chunk


def _parse_object(data: bytes, max_values: int) -> dict[str, Any]:
    value = parse_json(data, max_values, "the body")
    if not isinstance(value, dict):
        raise InvalidRequest(f"the body is a JSON {type(value).__name__}; an object is needed")
    return value


def _merged(query: dict[str, Any], members: dict[str, Any]) -> dict[str, Any]:
    """The members of a query string and of a body. Raises InvalidRequest for a member that both have."""
    if both := sorted(query.keys() & members.keys()):
        raise InvalidRequest(f"{', '.join(both)}: in the query and in the body; give it once")
    return {**query, **members}
