"""JSON responses, encoded by orjson."""

from typing import Any

import orjson
from starlette.responses import Response


def dumps(content: Any) -> bytes:
    """Encode as JSON; numpy arrays become lists of numbers, datetimes ISO 8601 in UTC."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z)


class JsonResponse(Response):
    """A JSON response. Content of type bytes is sent as it is."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return content if isinstance(content, bytes) else dumps(content)
