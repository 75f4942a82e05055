"""The errors that this package raises."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import httpx


class PanReidError(Exception):
    """Base class of the errors that this package raises. `code` is stable, for programs."""

    code: ClassVar[str] = "pan-reid"


class InvalidExport(PanReidError):
    """The file is not an exported gallery, or it is incomplete or damaged."""

    code: ClassVar[str] = "invalid-export"


class ClientError(PanReidError):
    """The service is unreachable, or its response is not one of the API."""

    code: ClassVar[str] = "client"


class ApiError(ClientError):
    """The service responded with a problem document. `problem_code` is its stable code, `status` the HTTP status."""

    code: ClassVar[str] = "api"

    def __init__(self, status: int, problem_code: str, detail: str, request_id: str) -> None:
        super().__init__(f"{detail} ({status} {problem_code}, request {request_id})")
        self.status = status
        self.problem_code = problem_code
        self.detail = detail
        self.request_id = request_id


def api_error(answer: httpx.Response) -> ClientError:
    """The error for a response that is not a success; its body must have been read."""
    try:
        problem = answer.json()
        return ApiError(answer.status_code, problem["code"], problem["detail"], problem["request_id"])
    except (ValueError, KeyError, TypeError):
        return ClientError(
            f"{answer.url} returned status {answer.status_code} without a problem document; check "
            "that this is pan-serve"
        )


def no_answer(error: httpx.TransportError) -> ClientError:
    """The error for a connection that failed."""
    url = error.request.url
    host = f"{url.scheme}://{url.netloc.decode()}"
    return ClientError(f"no answer from {host} ({type(error).__name__}: {error}); is `pan-serve run` there?")


@contextmanager
def transfer_errors(what: str, then: str) -> Iterator[None]:
    """Convert an error during the transfer `what` to a ClientError with the instruction `then`."""
    try:
        yield
    except httpx.ConnectError as error:
        raise no_answer(error) from error
    except (httpx.TransportError, InvalidExport) as error:
        raise ClientError(f"{what} failed ({error}); {then}") from error
