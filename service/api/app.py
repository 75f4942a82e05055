"""The web application: routes, and errors as problems."""

from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from bundle import PanError
from pan_reid.schemas import EnrolSummary, Problem, Rerank
from service.api import swagger_ui as pages
from service.api.dependencies import plain_request
from service.api.methods import HeadAsGet, allowed
from service.api.middleware.body_budget import BodyBudget
from service.api.middleware.load_shedding import LoadSheddingMiddleware
from service.api.middleware.request_context import RequestContextMiddleware
from service.api.openapi import component, streamed_entry
from service.api.problems import problem, problem_response, validation_problem
from service.api.routes import (
    compare,
    embeddings,
    enrol,
    entries,
    explain,
    galleries,
    persons,
    reembedding,
    search,
    stream,
    system,
    transfer,
)
from service.batching.limiter import ConcurrencyLimiter
from service.container import Container
from service.core.errors import ClientDisconnected

_DESCRIPTION = """Person re-identification: enrol crops of people in galleries, and ask where else a person was seen.

Errors are problem documents (RFC 9457) with a stable `code`. Every answer carries `X-Request-ID` and, saying where its
time went, `Server-Timing`."""


_NO_TELEMETRY: TelemetryConfig = {  # of FastAPI's own: its spans hold URLs, and a query may name a person
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}


_ROUTERS = [
    module.router
    for module in (
        embeddings,
        explain,
        compare,
        galleries,
        enrol,
        entries,
        stream,
        persons,
        search,
        transfer,
        reembedding,
        system,
        pages,
    )
]


def create_app(service: Container) -> FastAPI:
    """The application over a service that is open; both live on one event loop."""
    app = _routes()
    app.openapi()  # every query is held to it; made by the first of them, it would stop all other requests meanwhile
    app.state.service = service
    app.add_middleware(HeadAsGet)
    # A request that asks for work brings one picture at least, or searches: there is no use for more than these.
    places = ConcurrencyLimiter("requests", service.settings.max_queue, service.metrics.requests_admitted)
    max_streams = max(1, service.settings.max_queue // 2)
    streams = ConcurrencyLimiter("streams", max_streams, service.metrics.streams_admitted)
    budget = BodyBudget(service.settings.max_bodies, max_streams, service.metrics.body_bytes)
    app.add_middleware(LoadSheddingMiddleware, budget=budget, places=places, streams=streams)
    app.add_middleware(RequestContextMiddleware, metrics=service.metrics)  # the last one added is the outermost
    app.add_exception_handler(PanError, _on_pan_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    return app


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document, without a service."""
    return _routes().openapi()


def _routes() -> FastAPI:
    app = FastAPI(
        title="PAN Re-ID",
        version=version("pan-reid"),
        description=_DESCRIPTION,
        openapi_url=None,  # it is among the pages
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
        dependencies=[Depends(plain_request)],
        generate_unique_id_function=lambda route: route.name,
    )
    for router in _ROUTERS:
        app.include_router(router)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with the schemas that problems and the bodies read by hand refer to."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        schemas = document["components"]["schemas"]
        for model in (Problem, Rerank, EnrolSummary):
            schemas[model.__name__] = component(model)
        schemas["StreamedEntry"] = streamed_entry()
    assert app.openapi_schema is not None
    return app.openapi_schema


async def _on_pan_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PanError)
    return problem_response(error, request.state.request_id)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem_response(validation_problem(error.errors()), request.state.request_id)


async def _on_disconnect(request: Request, error: Exception) -> Response:
    """The body will not arrive: its client hung up, or sent something that is no HTTP and was told so already."""
    assert isinstance(error, ClientDisconnect)
    answer = problem_response(ClientDisconnected("the client closed the connection"), request.state.request_id)
    answer.status_code = getattr(request.state, "refused", answer.status_code)
    return answer


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "bad-request")
    answer = problem(error.status_code, code, str(error.detail), request.state.request_id)
    answer.headers.update(error.headers or {})
    if error.status_code == 405:  # Starlette names the methods of one route only
        answer.headers["Allow"] = allowed(_ROUTERS, request.scope)
    return answer
