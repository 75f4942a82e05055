"""What every route has in common: the service, the caller, the documentation of errors and of bodies read by hand."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from ipaddress import ip_address
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from pydantic import BaseModel, BeforeValidator, ValidationError
from pydantic_core import ErrorDetails

from pan_reid import schemas
from pan_reid.schemas import GalleryName
from service.api.parsing.body import Body
from service.api.parsing.form_values import from_text, read_int, refuse_unknown_query, unknown
from service.api.parsing.json_text import require_few
from service.api.problems import validation_problem
from service.api.responses import JsonResponse, dumps
from service.auth.keys import UNKNOWN
from service.container import Container
from service.core.errors import (
    ClientDisconnected,
    CrossSiteRequest,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    Refused,
    UnsupportedBody,
)
from service.core.settings import Settings

T = TypeVar("T")
M = TypeVar("M", bound=schemas.Request)

_MANY_ITEMS = 100  # entries, persons or vectors of an answer; to build it then takes some milliseconds


async def _service(request: Request) -> Container:
    service: Container = request.app.state.service
    return service


ServiceDep = Annotated[Container, Depends(_service)]

_BEARER = HTTPBearer(
    scheme_name="apiKey",
    description="A key that `pan-serve key create` made. Each call says which scope it must have; `admin` has all.",
    auto_error=False,
)


async def _key_holder(
    request: Request,
    service: ServiceDep,
    needed: SecurityScopes,
    sent: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
) -> str:
    """Who asks, for the audit: the name of the key, or the address where no key is required."""
    key = None
    try:
        key = service.keys.authenticate(sent.credentials if sent else None)
        if key is None:
            _refuse_foreign_pages(request, service.settings)
        else:
            for scope in needed.scopes:
                key.require(scope)
    except Refused as error:
        service.refusals.count(_address(request), key.name if key else None, error.reason)
        raise
    return key.name if key else _address(request)


async def _caller(
    request: Request,
    service: ServiceDep,
    needed: SecurityScopes,
    sent: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
) -> str:
    """As `_key_holder`. Unknown query parameters are refused afterwards: nothing is said about a call to somebody who
    may not make it.
    """
    name = await _key_holder(request, service, needed, sent)
    await refuse_unknown_query(request)
    return name


def _address(request: Request) -> str:
    """Of the client; a trusted proxy may have named it, and then it could be any text."""
    try:
        return str(ip_address(request.client.host if request.client else ""))
    except ValueError:
        return UNKNOWN


_HOST = re.compile(r"(?P<name>[a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


def _refuse_foreign_pages(request: Request, settings: Settings) -> None:
    """Keep out pages of other sites while no key is required.

    A browser that reaches this address posts forms here for any page; such a request says `Origin`, and in newer
    browsers `Sec-Fetch-Site`. A page whose name is made to point to this address (DNS rebinding) is of the same origin
    and reads the answers too; such a request has that name in `Host`.
    """
    host = request.headers.get("host", "").lower()
    if not _may_be_called(host, settings.allowed_hosts):
        raise CrossSiteRequest(
            f"while there is no API key the service is not called {host[:100]!r}: make a key, or start it with "
            "--allowed-host for this name"
        )
    origin = request.headers.get("origin")
    same_origin = origin is None or origin.lower().partition("://")[2] == host
    if not same_origin or request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        raise CrossSiteRequest("while there is no API key no page of another site may call: make a key")


def _may_be_called(host: str, names: Sequence[str]) -> bool:
    if not host:  # HTTP/1.0; no browser
        return True
    if (match := _HOST.fullmatch(host)) is None:
        return False
    name = match["name"].rstrip(".")
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return name == "localhost" or name in {allowed.lower() for allowed in names}
    return True


async def plain_request(request: Request) -> None:
    """Refuse a slash that came as `%2F`: it was part of a name, and by now it divides the path. And bodies that are
    compressed. Raises NotFound, UnsupportedBody.
    """
    if b"%2f" in request.scope["raw_path"].lower():
        raise NotFound("there is nothing at this path; no name in a path has a slash (%2F)")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise UnsupportedBody(f"Content-Encoding {encoding[:50]}: send the body as it is, without compression")


# Every route that tells or changes anything of the galleries depends on one of these; any other route on `KnownQuery`.
# What monitoring asks ignores the query: scrapers and probes add parameters of their own.
KnownQuery = Depends(refuse_unknown_query)
Caller = Annotated[str, Security(_caller)]  # with any key
MonitoringCaller = Annotated[str, Security(_key_holder)]
EmbedCaller = Annotated[str, Security(_caller, scopes=["embed"])]
SearchCaller = Annotated[str, Security(_caller, scopes=["search"])]
EnrolCaller = Annotated[str, Security(_caller, scopes=["enrol"])]
EraseCaller = Annotated[str, Security(_caller, scopes=["erase"])]
ExportCaller = Annotated[str, Security(_caller, scopes=["export"])]
AdminCaller = Annotated[str, Security(_caller, scopes=["admin"])]
GalleryPath = GalleryName
Limit = Annotated[int, BeforeValidator(read_int), Query(ge=1, le=1000)]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that needs a key: these problems, and those any such route may answer."""
    return open_problems(401, 403, 429, *statuses)


def open_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The same of a route that is open to all."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    titles = {
        401: "No API key, or none that is valid",
        403: "The API key has not the scope of this call; or no key is required, and a foreign page calls",
        404: "No such gallery, entry or person",
        409: "In conflict with what is there",
        413: "More than is accepted",
        414: "Path and query are too long; send the options in the body",
        415: "Not a content type or image format that is read",
        422: "The request cannot be carried out as it is",
        429: "The queue is full, too much is being read, or the key's rate used up; Retry-After says when to come back",
        500: "A fault of the service",
        503: "The engine or the database fails",
        504: "Not answered in time",
        507: "The disk is full",
    }
    return {status: {"description": titles[status], "content": content} for status in sorted({*statuses, 422, 500})}


EMBEDDING_PROBLEMS = (413, 414, 415, 429, 503, 504)


_MOST_ERRORS = 1000  # that are put into words, each at the cost of several kilobytes


def parse(model: type[M], members: Mapping[str, Any]) -> M:
    """Validate members. Raises InvalidRequest naming each wrong one."""
    require_few(members, model.max_values)
    try:
        return model.model_validate(members)
    except ValidationError as error:
        raise invalid(error, model) from None


def parse_options(model: type[M], body: Body) -> M:
    """Validate the members of a body, of which some are text. Raises InvalidRequest naming each wrong one."""
    texts = {name: value for name, value in body.members.items() if name in body.texts}
    return parse(model, {**body.members, **from_text(model, texts)})


def invalid(error: ValidationError, model: type[BaseModel]) -> InvalidRequest:
    """What pydantic found, without the values that were sent."""
    if (count := error.error_count()) > _MOST_ERRORS:
        return InvalidRequest(f"{count:,} members of the request are unknown or wrong")
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return validation_problem({**issue, "msg": _problem(issue, model)} for issue in found)


def _problem(issue: ErrorDetails, model: type[BaseModel]) -> str:
    name = issue["loc"][-1] if issue["loc"] else ""
    places = [part for part in issue["loc"] if isinstance(part, str)]
    if issue["type"] == "extra_forbidden" and places == [name]:  # a member of the model itself
        return unknown(places[0], [field.alias or known for known, field in model.model_fields.items()])
    return issue["msg"]


async def run_off_loop(body: Body, work: Callable[[], T]) -> T:
    """The result of work on a body that was read: on a thread where it would keep the other requests waiting."""
    return await asyncio.to_thread(work) if body.is_large else work()


async def respond(make: Callable[[], Any], items: int, status: int = 200) -> Response:
    """The JSON answer that `make` builds, with so many items: on a thread where that would keep the other requests
    waiting.
    """

    def encode() -> bytes:
        return dumps(make())

    return JsonResponse(await asyncio.to_thread(encode) if items > _MANY_ITEMS else encode(), status)


async def run_until_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of the work, which is cancelled when the client hangs up, and when the time of a request is over.

    The body must have been read. Raises ClientDisconnected, DeadlineExceeded, or what the work does.
    """
    limit = request.app.state.service.settings.request_timeout
    task = asyncio.create_task(work)
    hang_up = asyncio.create_task(_hang_up(request))
    try:
        await asyncio.wait({task, hang_up}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if hang_up.done():
            raise ClientDisconnected("the client closed the connection")
        raise DeadlineExceeded(f"not answered within {limit:g} s; ask for less at a time")
    finally:
        task.cancel()
        hang_up.cancel()


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
