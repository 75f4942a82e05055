"""Traces by OpenTelemetry, for whoever asks for them; what makes and sends them is the extra [otel].

    POST /v1/galleries/{gallery}/search      one request, continuing the caller's trace (W3C traceparent)
        decode                               of a picture, with its wait for a thread
        engine                               of a picture, from the queue to its vector
        engine wait                          in the queue
        search, search wait                  the same of a query
        commit                               of a write, with its wait for the others of its group
    engine batch, search batch               one call for many requests: a trace of its own, linked to theirs

Spans carry templates, sizes, statuses and request ids. Never a path, a name, a person or the text of an error.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol
from urllib.parse import urlsplit

from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
    use_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bundle import pip_install
from service.core.errors import StartupError
from service.observability import server_timing as timing

Answered = Callable[[str, str, int, str], None]  # method, route, status, request id


class Waiting(Protocol):
    """An item of a batch: the span it waits in, the request it is of, and since when (`time.monotonic`)."""

    @property
    def within(self) -> Span | None: ...
    @property
    def parts(self) -> timing.Parts | None: ...
    @property
    def since(self) -> float: ...


_PATIENCE = 3.0  # seconds for a parcel of spans: where the collector is away, a stop of the service waits for it
_CONTEXT = ("traceparent", "tracestate")

_tracer: Tracer | None = None  # of the one service of this process
_NOTHING: AbstractContextManager[None] = nullcontext()


@contextmanager
def exporting(endpoint: str | None) -> Iterator[None]:
    """Within it spans are sent to an OTLP collector (its base URL; HTTP, protobuf); at the end, those that are left.

    Nothing happens without an endpoint. Raises StartupError where the extra is missing or this is no URL.
    """
    global _tracer
    if endpoint is None:
        yield
        return
    if urlsplit(endpoint).scheme not in ("http", "https"):
        raise StartupError(f"{endpoint!r} is no URL of an OTLP collector; give one like http://127.0.0.1:4318")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise StartupError(
            f"traces are to be sent to {endpoint}, and what sends them is not installed ({error}): "
            f"run {pip_install('otel')}, or leave --otlp-endpoint and "
            "OTEL_EXPORTER_OTLP_ENDPOINT out"
        ) from None
    name = os.environ.get("OTEL_SERVICE_NAME", "pan-reid")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_PATIENCE)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = provider.get_tracer("pan-reid")
    try:
        yield
    finally:
        _tracer = None
        provider.shutdown()


def span(name: str) -> AbstractContextManager[object]:
    """A part of what goes on now."""
    if _tracer is None:
        return _NOTHING
    return _tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False)


@contextmanager
def part(name: str) -> Iterator[None]:
    """A span of a request of which its caller is told, too."""
    with timing.part(name), span(name):
        yield


def current() -> Span | None:
    """The span that this task is in, for a batch that another thread runs."""
    span = None if _tracer is None else get_current_span()
    return span if span is not None and span.get_span_context().is_valid else None


def request(headers: Iterable[tuple[bytes, bytes]]) -> AbstractContextManager[Answered]:
    """A request with these headers; how it was answered is said before the end."""
    return nullcontext(noop) if _tracer is None else _request(_tracer, headers)


@contextmanager
def batch(name: str, items: Sequence[Waiting]) -> Iterator[None]:
    """The work for several requests at once; until now they have waited."""
    began = time.monotonic()
    with _NOTHING if _tracer is None else _batch(_tracer, name, items):
        yield
    seconds = time.monotonic() - began
    for item in items:
        timing.took(item.parts, f"{name}-wait", began - item.since)
        timing.took(item.parts, name, seconds)


def noop(*_: object) -> None:
    """What `request` gives where nobody asks."""


@contextmanager
def _request(tracer: Tracer, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[Answered]:
    carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    parent = TraceContextTextMapPropagator().extract({name: carrier[name] for name in _CONTEXT if name in carrier})
    current = tracer.start_span("request", parent, SpanKind.SERVER)

    def answered(method: str, route: str, status: int, request_id: str) -> None:
        current.update_name(f"{method} {route}")
        current.set_attributes(
            {
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": status,
                "pan.request_id": request_id,
            }
        )
        if status >= 500:
            current.set_status(Status(StatusCode.ERROR))

    with use_span(current, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        yield answered


@contextmanager
def _batch(tracer: Tracer, name: str, items: Sequence[Waiting]) -> Iterator[None]:
    clock, monotonic = time.time_ns(), time.monotonic()
    callers = {}
    for item in items:
        if item.within is not None:
            began = clock - int(1e9 * (monotonic - item.since))
            tracer.start_span(f"{name} wait", set_span_in_context(item.within), start_time=began).end(clock)
            caller = item.within.get_span_context()
            callers[caller.span_id] = Link(caller)
    links = list(callers.values())
    attributes = {"pan.batch.size": len(items)}
    with tracer.start_as_current_span(
        f"{name} batch", links=links, attributes=attributes, record_exception=False, set_status_on_exception=False
    ):
        yield
