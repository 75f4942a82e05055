"""Errors as problem documents (RFC 9457): the HTTP status, the headers and the body of each."""

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.responses import Response

from bundle import CorruptImage, ImageError, ImageTooLarge, ImageTooSmall, PanError, UnsupportedImage
from service.api.responses import dumps
from service.core import errors
from service.core.errors import MAX_DETAIL, InvalidRequest, shorten

_MAX_PROBLEMS = 20

_STATUS: dict[type[PanError], int] = {  # a subclass has the status of its nearest base class
    errors.InvalidRequest: 422,
    errors.UnsupportedBody: 415,
    errors.BodyTooLarge: 413,
    errors.Unauthenticated: 401,
    errors.Refused: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.ModelMismatch: 409,
    errors.EntryDamaged: 409,
    errors.CropsMissing: 409,
    errors.NoExplainGraph: 409,
    errors.NotCalibrated: 409,
    errors.Overloaded: 429,
    errors.DeadlineExceeded: 504,
    errors.ClientDisconnected: 499,  # in logs and metrics only: nobody receives it
    errors.EngineFailed: 503,
    errors.NotReady: 503,
    errors.StorageFull: 507,
    errors.StorageFailed: 503,
    ImageError: 422,
    UnsupportedImage: 415,
    CorruptImage: 422,
    ImageTooLarge: 413,
    ImageTooSmall: 422,
    PanError: 500,
}


def status_of(error: PanError) -> int:
    """The HTTP status of an error."""
    return next(_STATUS[base] for base in type(error).__mro__ if base in _STATUS)


def problem(status: int, code: str, detail: str, request_id: str, **more: Any) -> Response:
    """A response with a problem document; `more` are additional members of it."""
    document = {
        "type": f"urn:pan-reid:problem:{code}",
        "title": code.replace("-", " ").capitalize(),
        "status": status,
        "detail": shorten(detail, 4 * MAX_DETAIL),
        "code": code,
        "request_id": request_id,
        **more,
    }
    return Response(dumps(document), status, media_type="application/problem+json")


def problem_response(error: PanError, request_id: str) -> Response:
    """The response to a request that raised `error`."""
    more = {"errors": error.problems} if isinstance(error, InvalidRequest) and error.problems else {}
    response = problem(status_of(error), error.code, str(error), request_id, **more)
    response.headers.update(_headers(error))
    return response


def _headers(error: PanError) -> dict[str, str]:
    match error:
        case errors.Overloaded():
            return {"Retry-After": str(error.retry_after)}
        case errors.Unauthenticated():  # RFC 6750
            return {"WWW-Authenticate": 'Bearer realm="pan-reid"'}
        case errors.Forbidden():
            challenge = f'Bearer realm="pan-reid", error="insufficient_scope", scope="{error.scope}"'
            return {"WWW-Authenticate": challenge}
    return {}


def validation_problem(found: Iterable[Mapping[str, Any]]) -> InvalidRequest:
    """Combine the errors of a pydantic validation into one, which names invalid members without their values."""
    problems = [
        {
            "at": shorten(".".join(shorten(str(part), 100) for part in issue["loc"])),
            "problem": shorten(issue["msg"].removeprefix("Value error, ")),
        }
        for issue, _ in zip(found, range(_MAX_PROBLEMS), strict=False)
    ]
    return InvalidRequest(f"{problems[0]['at'] or 'the request'}: {problems[0]['problem']}", problems)
