"""What every route has in common: the service, the caller, the documentation of errors and of bodies read by hand."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, TypeAdapter, ValidationError

from service.errors import ClientGone, InvalidRequest
from service.runtime import Service
from service.schemas import GalleryName, Identifier

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _caller(request: Request) -> str:
    """Who asks, for the audit. Authentication belongs here: every route that reads or changes data depends on it."""
    return request.client.host if request.client else "unknown"


ServiceDep = Annotated[Service, Depends(_service)]
Caller = Annotated[str, Depends(_caller)]
GalleryPath = GalleryName
PersonPath = Identifier


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: these problems, and those any route may answer."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    titles = {
        404: "No such gallery, entry or person",
        409: "In conflict with what is there",
        413: "More than is accepted",
        415: "Not a content type or image format that is read",
        422: "The request cannot be carried out as it is",
        429: "The queue is full; Retry-After says when to come back",
        500: "A fault of the service",
        503: "The engine or the database fails",
        504: "Not answered in time",
        507: "The disk is full",
    }
    return {status: {"description": titles[status], "content": content} for status in sorted({*statuses, 422, 500})}


EMBEDDING_PROBLEMS = (413, 415, 429, 503, 504)


def parse(model: type[M], members: Mapping[str, Any]) -> M:
    """Validate members. Raises InvalidRequest naming each wrong one."""
    try:
        return model.model_validate(members)
    except ValidationError as error:
        raise invalid(error) from None


def parse_list(model: type[M], items: Any) -> list[M]:
    """Validate a list of objects. Raises InvalidRequest naming each wrong member."""
    try:
        return TypeAdapter(list[model]).validate_python(items)  # type: ignore[valid-type]
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError) -> InvalidRequest:
    """What pydantic found, without the values that were sent."""
    found = [{"at": ".".join(map(str, issue["loc"])), "problem": issue["msg"]} for issue in error.errors()[:20]]
    first = found[0]
    return InvalidRequest(f"{first['at'] or 'the request'}: {first['problem']}", found)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of the work, which is cancelled when the client hangs up. The body must have been read."""
    task = asyncio.create_task(work)
    hang_up = asyncio.create_task(_hang_up(request))
    try:
        await asyncio.wait({task, hang_up}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone("the client closed the connection")
        return task.result()
    finally:
        task.cancel()
        hang_up.cancel()


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
