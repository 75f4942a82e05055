"""JSON responses, encoded by orjson."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from starlette.responses import Response

_MAX_ITEMS_ON_LOOP = 100  # entries, persons or vectors; building a larger response takes milliseconds


def dumps(content: Any) -> bytes:
    """Encode to JSON: numpy arrays as lists of numbers, datetimes as RFC 3339 in UTC."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z)


class JsonResponse(Response):
    """A JSON response. Bytes are sent as they are."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body."""
        return content if isinstance(content, bytes) else dumps(content)


async def respond(build: Callable[[], Any], items: int, status: int = 200) -> Response:
    """The JSON response with the content that `build` returns, on a thread if it has many items."""

    def encode() -> bytes:
        return dumps(build())

    return JsonResponse(await asyncio.to_thread(encode) if items > _MAX_ITEMS_ON_LOOP else encode(), status)
