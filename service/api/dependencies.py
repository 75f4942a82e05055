"""What routes get from the application: the use cases, and the parameters that several routes share."""

from typing import Annotated

from fastapi import Depends, Header, Query, Request
from pydantic import BeforeValidator

from pan_reid.schemas import GalleryName
from service.api.parsing.form_values import read_int
from service.container import Container, UseCases


async def _container(request: Request) -> Container:
    container: Container = request.app.state.container
    return container


async def _use_cases(request: Request) -> UseCases:
    container: Container = request.app.state.container
    return container.use_cases


ContainerDep = Annotated[Container, Depends(_container)]  # for authentication; routes get the use cases only
UseCasesDep = Annotated[UseCases, Depends(_use_cases)]

GalleryPath = GalleryName
Limit = Annotated[int, BeforeValidator(read_int), Query(ge=1, le=1000)]
KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=128,
        description="a new value for each request; a retry with the same value gets the results of the first request, "
        "and enrols nothing twice",
    ),
]
