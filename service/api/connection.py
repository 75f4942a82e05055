"""One HTTP connection: uvicorn's protocol on httptools, with the limits that httptools lacks.

They hold before a request reaches the application, so before any key is checked. A connection ends when the head of a
request is too large, or when the client is late with a head, the next request, the rest of a body whose response was
sent, or with reading a response.
"""

import asyncio
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.api.problems import problem

# Given twice, two readers of one request could use different values.
_SINGLE_FIELDS = frozenset({b"host", b"authorization", b"content-type", b"origin", b"idempotency-key"})
_LINGER = 2.0  # seconds for which input is dropped after a refusal; closing at once could discard the response


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of one connection. Sizes in bytes, times in seconds."""

    head: int = 32 * 2**10  # request line, header fields and trailers
    target: int = 8 * 2**10  # path and query
    fields: int = 100
    pipelined: int = 16  # requests that wait for the response to an earlier one
    head_timeout: float = 10.0  # from the connection, or the first byte of a later request, to the end of the head
    idle_timeout: float = 15.0  # from a response to the next request; httpx closes an idle connection after 5
    drain_timeout: float = 30.0  # for the rest of a body whose response was sent before it had arrived
    write_timeout: float = 30.0  # while the client reads nothing of a response


class _Refusal(Exception):
    """Stops the parser from within one of its callbacks."""


class Connection(HttpToolsProtocol):
    """Use it on one event loop. The server must call `check` regularly."""

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        limits: ConnectionLimits,
        peer: str,
        on_refused: Callable[[str], None],
        on_closed: Callable[["Connection"], None],
    ) -> None:
        """`on_refused` is called with the problem code of a request that is refused here."""
        super().__init__(config, state, {})
        self.peer = peer
        self._waiting_since = self.loop.time()  # for the client to send something
        self._limits = limits
        self._on_refused = on_refused
        self._on_closed = on_closed
        self._deadline = math.inf  # until which the client must send something
        self._in_head = self._in_body = False
        self._refusal = (400, "bad-request", "this is not HTTP/1.1")  # status, code, detail
        self._evicted = False
        self._is_dropping_input = False
        self._single_fields: set[bytes] = set()
        self._fields = self._head_size = 0
        self._unparsed = 0  # bytes since the parser last called back
        self.unsent = 0  # bytes of a response that the client had not read at the last check
        self.read_at = 0.0  # when the client last read something
        self._unread_since = 0.0  # while nothing more of a response can be sent

    @property
    def waiting_since(self) -> float:
        """Since when the connection waits for the client, to send or to read; infinity while a response is due."""
        if self.flow is not None and self.flow.write_paused:
            return self._unread_since
        return math.inf if self._is_response_due() else self._waiting_since

    def check(self, now: float) -> None:
        """Close the connection if the client is late. `now` is the time of the event loop."""
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self.unsent:
            self.read_at = now
        elif now - self.read_at >= self._limits.write_timeout:
            self.transport.abort()
        self.unsent = unsent
        if now >= self._deadline:
            self._deadline = math.inf
            if self._in_head and not self._is_dropping_input:
                self._refuse(408, "request-timeout", "the head of the request did not arrive in time")
            else:
                self.transport.close()

    def evict(self) -> None:
        """Close a connection that waits for its client, to make room for others."""
        self._evicted = True
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Callback of the transport: wait for the first request."""
        super().connection_made(transport)
        if self._evicted:
            transport.abort()
        self.read_at = self.loop.time()
        self._wait_for_client(self._limits.head_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Callback of the transport: cancel the work on the current request."""
        super().connection_lost(exc)
        if self._is_response_due() and (deadline := self.cycle.scope["state"].get("deadline")) is not None:
            deadline.disconnect()
        self._unset_keepalive_if_required()
        self._on_closed(self)

    def data_received(self, data: bytes) -> None:
        """Callback of the transport: parse what arrived."""
        if self._is_dropping_input:
            return
        if not (self._in_head or self._in_body or self._is_response_due()):
            self._wait_for_client(self._limits.head_timeout)
        self._unparsed += len(data)
        try:
            self.parser.feed_data(data)
            if self._unparsed > self._limits.head:  # within one field, or in what surrounds chunks of a body
                self._reject(431, "head-too-large", f"more than {self._limits.head:,} bytes of header fields")
        except httptools.HttpParserUpgrade:  # to a protocol that is not supported: answer the request over HTTP
            self._is_dropping_input = True
            self.cycle.keep_alive = False
        except (httptools.HttpParserError, _Refusal):
            self._refuse(*self._refusal)

    def on_message_begin(self) -> None:
        """Callback of the parser: a request begins."""
        super().on_message_begin()
        self._in_head = True
        self._single_fields = set()
        self._fields = self._head_size = self._unparsed = 0

    def on_url(self, url: bytes) -> None:
        """Callback of the parser: a part of path and query."""
        super().on_url(url)
        self._head_size += len(url)
        if len(self.url) > self._limits.target:
            self._reject(414, "target-too-long", f"path and query have more than {self._limits.target:,} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Callback of the parser: a header field or a trailer."""
        self._fields += 1
        self._head_size += len(name) + len(value) + len(": \r\n")
        if self._head_size > self._limits.head or self._fields > self._limits.fields:
            most = f"{self._limits.head:,} bytes or {self._limits.fields} header fields"
            self._reject(431, "head-too-large", f"the request has more than {most}")
        if self._in_body:
            return  # a trailer must not be taken for a header field: proxies check only the latter
        if (name := name.lower()) in _SINGLE_FIELDS:
            if name in self._single_fields:
                self._reject(400, "bad-request", f"the header field {name.decode()} is given twice")
            self._single_fields.add(name)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Callback of the parser: the head is complete, the application starts."""
        if b"host" not in self._single_fields and self.parser.get_http_version() == "1.1":
            self._reject(400, "bad-request", "the header field Host is missing")
        if len(self.pipeline) >= self._limits.pipelined:
            self._reject(400, "bad-request", "too many requests are waiting on this connection")
        super().on_headers_complete()
        self.scope["state"]["close_connection"] = partial(self._cut_off, self.cycle)
        self._in_head, self._in_body = False, True
        self._unparsed = 0
        self._deadline = math.inf

    def on_body(self, body: bytes) -> None:
        """Callback of the parser: a part of the body."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Callback of the parser: the request is complete."""
        self._in_body = False
        super().on_message_complete()
        if not self._is_response_due():
            self._wait_for_client(self._limits.idle_timeout)

    def on_response_complete(self) -> None:
        """A response is complete."""
        super().on_response_complete()
        self._unset_keepalive_if_required()  # of uvicorn, which any byte that arrives would stop
        if not self._is_response_due():
            drain, head, idle = self._limits.drain_timeout, self._limits.head_timeout, self._limits.idle_timeout
            self._wait_for_client(drain if self._in_body else head if self._in_head else idle)

    def pause_writing(self) -> None:
        """Callback of the transport: the client reads too slowly."""
        self._unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Callback of the transport: the client has read enough."""
        self.read_at = self.loop.time()
        super().resume_writing()

    def _is_response_due(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_for_client(self, seconds: float) -> None:
        self._waiting_since = self.loop.time()
        self._deadline = self._waiting_since + seconds

    def _cut_off(self, cycle: RequestResponseCycle) -> None:
        """Close in the middle of a response, so that the client does not take it for complete."""
        self._is_dropping_input = True
        cycle.disconnected = True
        self.transport.close()

    def _reject(self, status: int, code: str, detail: str) -> None:
        """Stop the parser, and let `data_received` refuse the request."""
        self._refusal = (status, code, detail)
        raise _Refusal

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Send a refusal unless it could be taken for the response to an earlier request; then close."""
        self._is_dropping_input = True
        self._on_refused(code)
        if self._is_response_due() and not self._in_body:  # the invalid request is a later one
            self.cycle.keep_alive = False
            return
        if self._in_body:
            if not self._is_response_due() or self.cycle.response_started or self.pipeline:
                self.transport.close()  # the refusal could be taken for the response to another request
                return
            self.cycle.scope["state"]["refused"] = status
            self.cycle.disconnected = True  # the application waits for the rest of the body
            self.cycle.message_event.set()
        refusal = problem(status, code, detail, uuid.uuid4().hex)
        fields = [*self.server_state.default_headers, *refusal.raw_headers, (b"connection", b"close")]
        head = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
        self.transport.write(STATUS_LINE[status] + head + b"\r\n" + bytes(refusal.body))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._wait_for_client(_LINGER)
