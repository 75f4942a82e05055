"""JSON answers and problem documents (RFC 9457), encoded by orjson."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from starlette.responses import Response

from bundle import PanError
from service.core.errors import LONGEST, InvalidRequest, ServiceError, shorten, status_of

_PROBLEMS = 20


def dumps(content: Any) -> bytes:
    """JSON bytes; numpy arrays as lists of numbers, datetimes as ISO 8601 in UTC."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z)


class JsonResponse(Response):
    """A JSON answer."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return content if isinstance(content, bytes) else dumps(content)


def problem(status: int, code: str, detail: str, request_id: str, **more: Any) -> Response:
    """A problem document; `more` members are added to it."""
    document = {
        "type": f"urn:pan-reid:problem:{code}",
        "title": code.replace("-", " ").capitalize(),
        "status": status,
        "detail": shorten(detail, 4 * LONGEST),
        "code": code,
        "request_id": request_id,
        **more,
    }
    return Response(dumps(document), status, media_type="application/problem+json")


def problem_response(error: PanError, request_id: str) -> Response:
    """The problem document of one of our errors."""
    more = {"errors": error.problems} if isinstance(error, InvalidRequest) and error.problems else {}
    response = problem(status_of(error), error.code, str(error), request_id, **more)
    if isinstance(error, ServiceError):
        response.headers.update(error.headers())
    return response


def validation_problem(found: Iterable[Mapping[str, Any]]) -> InvalidRequest:
    """What pydantic found, as an error that names the first members, without the values that were sent."""
    problems = [
        {
            "at": shorten(".".join(shorten(str(part), 100) for part in issue["loc"])),
            "problem": shorten(issue["msg"].removeprefix("Value error, ")),
        }
        for issue, _ in zip(found, range(_PROBLEMS), strict=False)
    ]
    return InvalidRequest(f"{problems[0]['at'] or 'the request'}: {problems[0]['problem']}", problems)
