"""What a client raises."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import httpx

from bundle import PanError
from service.core.errors import InvalidRequest


class ClientError(PanError):
    """The service could not be reached, or answered something that is no answer of its API."""

    code: ClassVar[str] = "client"


class ApiError(ClientError):
    """The service answered with a problem. `problem_code` is its stable code, `status` the HTTP status."""

    code: ClassVar[str] = "api"

    def __init__(self, status: int, problem_code: str, detail: str, request_id: str) -> None:
        super().__init__(f"{detail} ({status} {problem_code}, request {request_id})")
        self.status = status
        self.problem_code = problem_code
        self.detail = detail
        self.request_id = request_id


def api_error(answer: httpx.Response) -> ClientError:
    """The problem that an answer, read to its end, tells of."""
    try:
        problem = answer.json()
        return ApiError(answer.status_code, problem["code"], problem["detail"], problem["request_id"])
    except (ValueError, KeyError, TypeError):
        return ClientError(f"{answer.url} answered {answer.status_code} and no problem document; is it pan-serve?")


def no_answer(error: httpx.TransportError) -> ClientError:
    """There is no service, or it went away."""
    url = error.request.url
    host = f"{url.scheme}://{url.netloc.decode()}"
    return ClientError(f"no answer from {host} ({type(error).__name__}: {error}); is `pan-serve run` there?")


@contextmanager
def may_break_off(what: str, then: str) -> Iterator[None]:
    """Within it a long transfer runs; where it ends early, ClientError says so, and what to do `then`."""
    try:
        yield
    except httpx.ConnectError as error:
        raise no_answer(error) from error
    except (httpx.TransportError, InvalidRequest) as error:
        raise ClientError(f"{what} broke off ({error}); {then}") from error
