"""Around every request: its id, its deadline, its log line, its metrics, its headers, and the answer to a fault."""

import logging
import re
import time
import uuid
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bundle import PanError
from service.api.deadline import Deadline
from service.api.problems import problem
from service.observability import server_timing, tracing
from service.observability.metrics import Metrics

log = logging.getLogger("service.request")

_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}$")
_MONITORING = ("/healthz", "/readyz", "/metrics")  # requested all the time: logged at level DEBUG, never traced
_HEADERS = [  # of every response that does not set them itself; most responses contain personal data
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
]


class RequestContextMiddleware:
    """ASGI middleware. It logs the template of the route, never path or query: a query may contain a person id."""

    def __init__(self, app: ASGIApp, metrics: Metrics, request_timeout: float) -> None:
        """`request_timeout` is in seconds, from the head of a request to its response."""
        self._app = app
        self._metrics = metrics
        self._request_timeout = request_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] in _MONITORING:
            await self._serve(scope, receive, send, tracing.noop)
        else:
            with tracing.request(scope["headers"]) as answered:
                await self._serve(scope, receive, send, answered)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, answered: tracing.FinishRequest) -> None:
        request_id = _given_id(scope) or uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["deadline"] = Deadline(self._request_timeout)
        started = time.monotonic()
        status = 0
        durations = server_timing.start_request()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                timing = server_timing.format_header(durations, time.monotonic() - started)
                given = [*message["headers"], (b"x-request-id", request_id.encode()), (b"server-timing", timing)]
                names = {name for name, _ in given}
                message["headers"] = [*given, *(header for header in _HEADERS if header[0] not in names)]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            if status and (reason := _pan_error(error)) is not None:
                log.warning("a response was cut off", extra={"request_id": request_id, "reason": str(reason)})
            else:
                log.exception("unexpected", extra={"request_id": request_id})
            if status:
                close: Callable[[], None] = state.get("close_connection", _do_nothing)
                close()
            else:
                response = problem(500, "internal-error", "the service has a fault; see its log", request_id)
                await response(scope, receive, send_with_headers)
        seconds = time.monotonic() - started
        # Both are labels of metrics, so they must not be arbitrary texts of clients.
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if status != 405 and route != "none" else "any"
        answered(method, route, status, request_id)
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.request_seconds.labels(method, route).observe(seconds)
        fields = {"method": method, "route": route, "status": status, "ms": round(1000 * seconds, 1)}
        level = logging.DEBUG if route in _MONITORING else logging.INFO
        log.log(level, "request", extra={"request_id": request_id, **fields})


def _pan_error(error: BaseException | None) -> PanError | None:
    """The error that cut off a response, if the service raised it on purpose."""
    while error is not None and not isinstance(error, PanError):
        error = error.__cause__
    return error


def _do_nothing() -> None:
    """Used if there is no connection to close."""


def _given_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.match(text := value.decode("latin-1")):
            return str(text)
    return None
