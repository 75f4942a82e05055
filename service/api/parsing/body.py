"""Request bodies: multipart files, one raw image, or JSON. Every limit holds while the body streams in.

Nothing touches the disk, and an image over its own limit is dropped as it arrives and fails alone.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from bundle import ImageTooLarge
from pan_reid.schemas import SearchOptions
from service.api.parsing.json_text import VALUES_PER_ENTRY, parse_json
from service.core.errors import BodyTooLarge, DeadlineExceeded, InvalidRequest, UnsupportedBody
from service.core.settings import Settings
from service.core.types import Image

T = TypeVar("T")

_MAX_FIELDS = SearchOptions.max_values  # of all calls this one takes the most: a field for each item of its lists
_FIELDS_PER_IMAGE = 16 * 2**10  # bytes of form fields; the longest metadata of a crop in Latin script
_FIELDS_BESIDES = 64 * 2**10  # bytes of the options of a call
_SMALL_BODY = 256 * 2**10  # bytes of a call without pictures and vectors
_LARGE = 64 * 2**10


@dataclass(slots=True)
class Body:
    """What a request carries: images, and members by name (of JSON, form fields or the query string)."""

    images: list[Image] = field(default_factory=list)
    members: dict[str, Any] = field(default_factory=dict)
    texts: frozenset[str] = frozenset()  # the members that came as text, in a form or the query
    is_json: bool = False
    is_large: bool = False  # it takes long to decode, or to hash
    names: list[str] = field(default_factory=list)  # of the parts that the images of a multipart body are

    def digest(self) -> str:
        """SHA-256 over what is asked, the same however the body was framed."""
        try:
            digest = hashlib.sha256(orjson.dumps(self.members, option=orjson.OPT_SORT_KEYS))
        except TypeError:  # it writes less deeply than it reads
            raise InvalidRequest("the body is JSON of more than 250 levels; no call takes as many") from None
        for image in self.images:
            digest.update(hashlib.sha256(image if isinstance(image, bytes) else str(image).encode()).digest())
        return digest.hexdigest()


async def read_body(request: Request, settings: Settings) -> Body:
    """Read the body by its Content-Type. Raises UnsupportedBody, BodyTooLarge or InvalidRequest, and DeadlineExceeded
    where it does not arrive in time: until it has, it keeps another one out.
    """
    return await _in_time(_read_body(request, settings), settings)


async def read_json(request: Request, settings: Settings) -> dict[str, Any]:
    """The JSON object of a call without pictures and vectors. Raises as `read_body`."""
    if parse_options_header(request.headers.get("content-type"))[0] != b"application/json":
        raise UnsupportedBody("this call takes application/json")
    data = await _in_time(_joined(_limited(request, min(_SMALL_BODY, settings.max_body))), settings)
    return _object(data, VALUES_PER_ENTRY)


async def _in_time(reading: Coroutine[Any, Any, T], settings: Settings) -> T:
    try:
        async with asyncio.timeout(settings.request_timeout):
            return await reading
    except TimeoutError:
        raise DeadlineExceeded(
            f"the body did not arrive within {settings.request_timeout:g} s; send less at a time"
        ) from None


async def _read_body(request: Request, settings: Settings) -> Body:
    content_type, parameters = parse_options_header(request.headers.get("content-type"))
    query = _query(request)
    stream = _limited(request, settings.max_body)
    if content_type == b"application/json":
        data = await _joined(stream)
        is_large = len(data) > _LARGE
        most = settings.max_images * VALUES_PER_ENTRY
        members = await asyncio.to_thread(_object, data, most) if is_large else _object(data, most)
        members = _merged(query, members)
        return Body(members=members, texts=frozenset(query), is_json=True, is_large=is_large)
    if content_type == b"multipart/form-data":
        fields: dict[str, Any] = {}
        parts = _MultipartReader(settings, fields)
        await parts.read(stream, parameters.get(b"boundary", b""))
        members = _merged(query, fields)
        is_large = parts.field_bytes > _LARGE
        return Body(parts.images, members, frozenset(members), is_large=is_large, names=parts.names)
    if content_type.startswith(b"image/") or content_type == b"application/octet-stream":
        limit = settings.images.max_bytes
        image = await _joined(_limited(request, min(limit, settings.max_body)))
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
        _add(query, name, value)
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


def _object(data: bytes, max_values: int) -> dict[str, Any]:
    value = parse_json(data, max_values, "the body")
    if not isinstance(value, dict):
        raise InvalidRequest(f"the body is a JSON {type(value).__name__}; an object is needed")
    return value


def _merged(query: dict[str, Any], members: dict[str, Any]) -> dict[str, Any]:
    """The members of a query string and of a body. Raises InvalidRequest for one that is in both."""
    if both := sorted(query.keys() & members.keys()):
        raise InvalidRequest(f"{', '.join(both)}: in the query and in the body; give it once")
    return {**query, **members}


def _add(members: dict[str, Any], name: str, value: str) -> None:
    """A name that comes twice becomes a list."""
    if name not in members:
        members[name] = value
    elif isinstance(members[name], list):
        members[name].append(value)
    else:
        members[name] = [members[name], value]


class _MultipartReader:
    """Callbacks of the multipart parser. A part with a file name is an image, any other is a member."""

    def __init__(self, settings: Settings, members: dict[str, Any]) -> None:
        self.images: list[Image] = []
        self.names: list[str] = []
        self._members = members
        self._settings = settings
        self._fields = 0
        self.field_bytes = 0
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._name = ""
        self._is_image = False
        self._chunks: list[bytes] = []
        self._size = 0
        self._ended = False

    async def read(self, stream: AsyncIterator[bytes], boundary: bytes) -> None:
        if not boundary:
            raise InvalidRequest("multipart/form-data without a boundary")
        callbacks = {name: getattr(self, name) for name in dir(self) if name.startswith("on_")}
        try:
            parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
            async for chunk in stream:
                parser.write(chunk)
            parser.finalize()
        except FormParserError as error:
            raise InvalidRequest(f"the multipart body cannot be read: {error}") from None
        if not self._ended:
            raise InvalidRequest("the multipart body ends early")

    def on_part_begin(self) -> None:
        self._disposition, self._chunks, self._size = b"", [], 0

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._is_image = b"filename" in options
        if self._is_image and len(self.images) == self._settings.max_images:
            raise BodyTooLarge(f"more than {self._settings.max_images} images in one request")
        self._fields += not self._is_image
        if self._fields > _MAX_FIELDS:
            raise BodyTooLarge(f"the form has more than {_MAX_FIELDS:,} fields; send fewer names in its lists")
        if b"name" not in options:
            raise InvalidRequest("a part of the multipart body has no name")
        self._name = _text(options[b"name"])

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if not self._is_image:
            self.field_bytes += end - start
            if self.field_bytes > (most := self._settings.max_images * _FIELDS_PER_IMAGE + _FIELDS_BESIDES):
                raise BodyTooLarge(f"the form fields have more than {most:,} bytes; send fewer crops at a time")
        if not self._is_image or self._size <= self._settings.images.max_bytes:
            self._chunks.append(data[start:end])
        else:
            self._chunks.clear()

    def on_part_end(self) -> None:
        if not self._is_image:
            if value := _text(b"".join(self._chunks)):  # a form in a browser also sends the fields that were left empty
                _add(self._members, self._name, value)
            return
        self.names.append(self._name)
        if self._size > self._settings.images.max_bytes:
            limit = self._settings.images.max_bytes
            self.images.append(ImageTooLarge(f"the image has {self._size:,} bytes; at most {limit:,} are accepted"))
        else:
            self.images.append(b"".join(self._chunks))

    def on_end(self) -> None:
        self._ended = True


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("a form field is not UTF-8") from None
