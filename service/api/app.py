"""The web application: routes, middleware, and errors as problem documents."""

from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from bundle import PanError
from pan_reid.schemas import EnrolSummary, Problem, Rerank
from service.api import swagger_ui
from service.api.auth import require_plain_request
from service.api.methods import HeadAsGet, allowed_methods
from service.api.middleware.body_budget import BodyBudget
from service.api.middleware.load_shedding import PAGE, LoadSheddingMiddleware
from service.api.middleware.request_context import RequestContextMiddleware
from service.api.openapi import component, streamed_entry
from service.api.problems import problem, problem_response, validation_problem
from service.api.routes import (
    audit,
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

_DESCRIPTION = """Person re-identification: enrol crops in galleries, and search for other images of a person.

Errors are problem documents (RFC 9457) with a stable `code`. Every response has the headers `X-Request-ID` and
`Server-Timing`."""

_NO_TELEMETRY: TelemetryConfig = {  # FastAPI's own spans contain URLs, and a query may contain a person id
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
        audit,
        system,
        swagger_ui,
    )
]


def create_app(container: Container) -> FastAPI:
    """The application of an open service. Both run on one event loop."""
    app = _application()
    app.openapi()  # queries are checked against it; building it later would delay all requests
    app.state.container = container
    settings, metrics = container.settings, container.metrics
    app.add_middleware(HeadAsGet)
    # Each request has at least one image or one search, so the limit on images also limits requests.
    requests = ConcurrencyLimiter("requests", settings.max_queue, metrics.requests_admitted)
    max_streams = max(1, settings.max_queue // 2)
    streams = ConcurrencyLimiter("streams", max_streams, metrics.streams_admitted)
    budget = BodyBudget(settings.max_bodies, max_streams, metrics.body_bytes)
    page = min(PAGE, settings.max_queue)
    app.add_middleware(LoadSheddingMiddleware, budget=budget, requests=requests, streams=streams, page=page)
    # The last middleware added is the outermost one.
    app.add_middleware(RequestContextMiddleware, metrics=metrics, request_timeout=settings.request_timeout)
    app.add_exception_handler(PanError, _on_pan_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    return app


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document. It needs no running service."""
    return _application().openapi()


def _application() -> FastAPI:
    app = FastAPI(
        title="PAN Re-ID",
        version=version("pan-reid"),
        description=_DESCRIPTION,
        openapi_url=None,  # a route of `swagger_ui`
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
        dependencies=[Depends(require_plain_request)],
        generate_unique_id_function=lambda route: route.name,
    )
    for router in _ROUTERS:
        app.include_router(router)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with the schemas that problems and manually parsed bodies refer to."""
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
    """The body is incomplete: the client disconnected, or sent invalid HTTP and has got a response already."""
    assert isinstance(error, ClientDisconnect)
    response = problem_response(ClientDisconnected("the client closed the connection"), request.state.request_id)
    response.status_code = getattr(request.state, "refused", response.status_code)
    return response


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "bad-request")
    response = problem(error.status_code, code, str(error.detail), request.state.request_id)
    response.headers.update(error.headers or {})
    if error.status_code == 405:  # Starlette names the methods of one route only
        response.headers["Allow"] = allowed_methods(_ROUTERS, request.scope)
    return response
