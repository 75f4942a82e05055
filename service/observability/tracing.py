"""Optional OpenTelemetry traces. The SDK and the exporter are in the extra [otel].

    POST /v1/galleries/{gallery}/search      a request, as a part of the client's trace (W3C traceparent)
        decode                               decoding of an image, with its wait for a thread
        engine                               embedding of an image, from the queue to its vector
        engine wait                          its wait in the queue
        search, search wait                  the same for a query
        commit                               commit of a write, with its wait for the transaction
    engine batch, search batch               one call for several requests: a separate trace with links to theirs

Spans contain route templates, sizes, statuses and request ids, but no paths, names, persons or error messages.
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
from service.observability import server_timing

FinishRequest = Callable[[str, str, int, str], None]  # method, route, status, request id


class BatchItem(Protocol):
    """An item of a batch: the span and the durations of its request, and when it was queued (`time.monotonic`)."""

    @property
    def parent_span(self) -> Span | None: ...
    @property
    def durations(self) -> server_timing.Durations | None: ...
    @property
    def since(self) -> float: ...


_EXPORT_TIMEOUT = 3.0  # seconds per export; shutdown waits this long for an unreachable collector
_TRACE_HEADERS = ("traceparent", "tracestate")

_tracer: Tracer | None = None  # None while tracing is off; a process runs one service
_NO_SPAN: AbstractContextManager[None] = nullcontext()


@contextmanager
def export_spans(endpoint: str | None) -> Iterator[None]:
    """Export spans to an OTLP collector (HTTP, protobuf) inside the context, and the remaining ones at its end.

    `endpoint` is the base URL of the collector; None turns tracing off. Raises StartupError if it is not a URL, or if
    the extra [otel] is not installed.
    """
    global _tracer
    if endpoint is None:
        yield
        return
    if urlsplit(endpoint).scheme not in ("http", "https"):
        raise StartupError(
            f"--otlp-endpoint: {endpoint!r} is not the URL of an OTLP collector; give one like http://127.0.0.1:4318"
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise StartupError(
            f"the OTLP exporter for {endpoint} is not installed ({error}): run {pip_install('otel')}, or omit "
            "--otlp-endpoint and OTEL_EXPORTER_OTLP_ENDPOINT"
        ) from None
    name = os.environ.get("OTEL_SERVICE_NAME", "pan-reid")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_TIMEOUT)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = provider.get_tracer("pan-reid")
    try:
        yield
    finally:
        _tracer = None
        provider.shutdown()


def span(name: str) -> AbstractContextManager[object]:
    """A child of the current span."""
    if _tracer is None:
        return _NO_SPAN
    return _tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """A child of the current span, which is also a stage in the Server-Timing header."""
    with server_timing.measure(name), span(name):
        yield


def current() -> Span | None:
    """The current span, for a batch that another thread runs; None while tracing is off."""
    span = None if _tracer is None else get_current_span()
    return span if span is not None and span.get_span_context().is_valid else None


def request(headers: Iterable[tuple[bytes, bytes]]) -> AbstractContextManager[FinishRequest]:
    """The span of a request with these headers. Call the yielded function with the response before the end."""
    return nullcontext(noop) if _tracer is None else _request(_tracer, headers)


@contextmanager
def batch(name: str, items: Sequence[BatchItem]) -> Iterator[None]:
    """The span of a call for several requests, and of the wait of each until now."""
    started = time.monotonic()
    with _NO_SPAN if _tracer is None else _batch(_tracer, name, items):
        yield
    seconds = time.monotonic() - started
    for item in items:
        server_timing.record(item.durations, f"{name}-wait", started - item.since)
        server_timing.record(item.durations, name, seconds)


def noop(*_: object) -> None:
    """No-op callback when tracing is off."""


@contextmanager
def _request(tracer: Tracer, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[FinishRequest]:
    carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    parent = TraceContextTextMapPropagator().extract(
        {name: carrier[name] for name in _TRACE_HEADERS if name in carrier}
    )
    current = tracer.start_span("request", parent, SpanKind.SERVER)

    def finish(method: str, route: str, status: int, request_id: str) -> None:
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
        yield finish


@contextmanager
def _batch(tracer: Tracer, name: str, items: Sequence[BatchItem]) -> Iterator[None]:
    clock, monotonic = time.time_ns(), time.monotonic()
    callers = {}
    for item in items:
        if item.parent_span is not None:
            queued = clock - int(1e9 * (monotonic - item.since))
            tracer.start_span(f"{name} wait", set_span_in_context(item.parent_span), start_time=queued).end(clock)
            caller = item.parent_span.get_span_context()
            callers[caller.span_id] = Link(caller)
    links = list(callers.values())
    attributes = {"pan.batch.size": len(items)}
    with tracer.start_as_current_span(
        f"{name} batch", links=links, attributes=attributes, record_exception=False, set_status_on_exception=False
    ):
        yield
