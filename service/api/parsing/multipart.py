"""Multipart bodies, parsed while they arrive. A part with a file name is an image, any other part is a form field."""

from collections.abc import AsyncIterator
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from bundle import ImageTooLarge
from pan_reid.schemas import SearchOptions
from service.core.errors import BodyTooLarge, InvalidRequest
from service.core.settings import Settings
from service.core.types import Image

_MAX_FIELDS = SearchOptions.max_values  # a search has the most: a field for each item of its lists
_FIELD_BYTES_PER_IMAGE = 16 * 2**10  # the longest metadata of a crop in Latin script
_OPTION_BYTES = 64 * 2**10  # the options of a call


class MultipartReader:
    """Collects the parts. Methods `on_...` are callbacks of the parser."""

    def __init__(self, settings: Settings) -> None:
        self.images: list[Image] = []
        self.names: list[str] = []  # of the parts that are images
        self.fields: dict[str, Any] = {}
        self.field_bytes = 0
        self._settings = settings
        self._field_count = 0
        self._header = b""
        self._value = b""
        self._disposition = b""
        self._name = ""
        self._is_image = False
        self._chunks: list[bytes] = []
        self._size = 0
        self._is_complete = False

    async def read(self, stream: AsyncIterator[bytes], boundary: bytes) -> None:
        """Read the body to its end. Raises InvalidRequest or BodyTooLarge.

        An image that exceeds its own limit is dropped while it arrives, and fails alone.
        """
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
        if not self._is_complete:
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
        self._field_count += not self._is_image
        if self._field_count > _MAX_FIELDS:
            raise BodyTooLarge(f"the form has more than {_MAX_FIELDS:,} fields; send fewer names in its lists")
        if b"name" not in options:
            raise InvalidRequest("a part of the multipart body has no name")
        self._name = _text(options[b"name"])

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if not self._is_image:
            self.field_bytes += end - start
            limit = self._settings.max_images * _FIELD_BYTES_PER_IMAGE + _OPTION_BYTES
            if self.field_bytes > limit:
                raise BodyTooLarge(f"the form fields have more than {limit:,} bytes; send fewer crops in one request")
        if not self._is_image or self._size <= self._settings.images.max_bytes:
            self._chunks.append(data[start:end])
        else:
            self._chunks.clear()

    def on_part_end(self) -> None:
        if not self._is_image:
            if value := _text(b"".join(self._chunks)):  # browsers also send fields that were left empty
                add_member(self.fields, self._name, value)
            return
        self.names.append(self._name)
        if self._size > (limit := self._settings.images.max_bytes):
            self.images.append(ImageTooLarge(f"the image has {self._size:,} bytes; at most {limit:,} are accepted"))
        else:
            self.images.append(b"".join(self._chunks))

    def on_end(self) -> None:
        self._is_complete = True


def add_member(members: dict[str, Any], name: str, value: str) -> None:
    """Add a text. A name that is given twice becomes a list."""
    if name not in members:
        members[name] = value
    elif isinstance(members[name], list):
        members[name].append(value)
    else:
        members[name] = [members[name], value]


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("a form field is not UTF-8") from None
