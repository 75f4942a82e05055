"""One HTTP connection: uvicorn's protocol on httptools, with the bounds that httptools lacks.

They hold before a request reaches the application, so before any key. A connection ends when its client sends too large
a head, or takes too long over a head, the next request, the rest of a body that was answered already, or an answer.
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

# Sent twice, two readers of one request could each believe another value.
_ONCE = frozenset({b"host", b"authorization", b"content-type", b"origin", b"idempotency-key"})
_LINGER = 2.0  # seconds for which input is dropped after a refusal; a close at once would take the answer along


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of one connection. Sizes in bytes, times in seconds."""

    head: int = 32 * 2**10  # request line, header fields and trailers
    target: int = 8 * 2**10  # path and query
    fields: int = 100
    pipelined: int = 16  # requests that wait behind an unanswered one
    head_timeout: float = 10.0  # from the connection, or the first byte of a later request, to the end of the head
    idle_timeout: float = 15.0  # from an answer to the next request; httpx gives a connection up after 5
    drain_timeout: float = 30.0  # for the rest of a body that was answered before it had arrived
    write_timeout: float = 30.0  # while the client takes nothing of an answer


class _Refusal(Exception):
    """Ends the parsing of a request from within a callback of the parser."""


class Connection(HttpToolsProtocol):
    """Used from one event loop. Somebody must call `check` from time to time."""

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        limits: ConnectionLimits,
        peer: str,
        on_refused: Callable[[str], None],
        on_closed: Callable[["Connection"], None],
    ) -> None:
        """`on_refused` gets the problem code of a request that is refused here."""
        super().__init__(config, state, {})
        self.peer = peer
        self._turn_since = self.loop.time()  # of the client, while it is owed no answer
        self._limits = limits
        self._on_refused = on_refused
        self._on_closed = on_closed
        self._deadline = math.inf  # of the client's turn
        self._in_head = self._in_body = False
        self._refusal = (400, "bad-request", "this is not HTTP/1.1")  # status, code, detail
        self._evicted = False
        self._deaf = False  # whatever arrives is dropped
        self._once: set[bytes] = set()
        self._fields = self._head_size = 0
        self._unparsed = 0  # bytes since the parser last made something of them
        self.unsent = 0  # bytes of an answer that the client had not taken at the last check
        self.taken_at = 0.0  # when it last took any
        self._unread_since = 0.0  # while no more of an answer can be sent

    @property
    def waiting_since(self) -> float:
        """When the client's turn began, to ask or to read; infinity while it is owed an answer."""
        if self.flow is not None and self.flow.write_paused:
            return self._unread_since
        return math.inf if self._owes_answer() else self._turn_since

    def check(self, now: float) -> None:
        """Close the connection where the client is late. `now` is the time of the event loop."""
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self.unsent:
            self.taken_at = now
        elif now - self.taken_at >= self._limits.write_timeout:
            self.transport.abort()
        self.unsent = unsent
        if now >= self._deadline:
            self._deadline = math.inf
            if self._in_head and not self._deaf:
                self._refuse(408, "request-timeout", "the head of the request did not arrive in time")
            else:
                self.transport.close()

    def evict(self) -> None:
        """Close the connection of a client that has yet to ask or to read, to make room for others."""
        self._evicted = True
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The client's turn begins."""
        super().connection_made(transport)
        if self._evicted:
            transport.abort()
        self.taken_at = self.loop.time()
        self._wait_for_client(self._limits.head_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells the application, and who counts connections."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._on_closed(self)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived."""
        if self._deaf:
            return
        if not (self._in_head or self._in_body or self._owes_answer()):
            self._wait_for_client(self._limits.head_timeout)
        self._unparsed += len(data)
        try:
            self.parser.feed_data(data)
            if self._unparsed > self._limits.head:  # within one field, or in what surrounds chunks of a body
                self._reject(431, "head-too-large", f"more than {self._limits.head:,} bytes of header fields")
        except httptools.HttpParserUpgrade:  # to a protocol that is not spoken here: the request is answered as it is
            self._deaf = True
            self.cycle.keep_alive = False
        except (httptools.HttpParserError, _Refusal):
            self._refuse(*self._refusal)

    def on_message_begin(self) -> None:
        """Of the parser: a request begins."""
        super().on_message_begin()
        self._in_head = True
        self._once = set()
        self._fields = self._head_size = self._unparsed = 0

    def on_url(self, url: bytes) -> None:
        """Of the parser: a piece of path and query."""
        super().on_url(url)
        self._head_size += len(url)
        if len(self.url) > self._limits.target:
            self._reject(414, "target-too-long", f"path and query have more than {self._limits.target:,} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of the parser: a header field, or a trailer."""
        self._fields += 1
        self._head_size += len(name) + len(value) + len(": \r\n")
        if self._head_size > self._limits.head or self._fields > self._limits.fields:
            most = f"{self._limits.head:,} bytes or {self._limits.fields} header fields"
            self._reject(431, "head-too-large", f"the request has more than {most}")
        if self._in_body:
            return  # a trailer must not pass for a header: proxies check those only
        if (name := name.lower()) in _ONCE:
            if name in self._once:
                self._reject(400, "bad-request", f"the header field {name.decode()} is there twice")
            self._once.add(name)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Of the parser: the application begins to work."""
        if b"host" not in self._once and self.parser.get_http_version() == "1.1":
            self._reject(400, "bad-request", "there is no header field Host")
        if len(self.pipeline) >= self._limits.pipelined:
            self._reject(400, "bad-request", "too many requests are waiting on this connection")
        super().on_headers_complete()
        self.scope["state"]["break_off"] = partial(self._break_off, self.cycle)
        self._in_head, self._in_body = False, True
        self._unparsed = 0
        self._deadline = math.inf

    def on_body(self, body: bytes) -> None:
        """Of the parser: a piece of the body."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Of the parser: the request has arrived."""
        self._in_body = False
        super().on_message_complete()
        if not self._owes_answer():
            self._wait_for_client(self._limits.idle_timeout)

    def on_response_complete(self) -> None:
        """A request was answered."""
        super().on_response_complete()
        self._unset_keepalive_if_required()  # of uvicorn, which any byte that arrives would stop
        if not self._owes_answer():
            drain, head, idle = self._limits.drain_timeout, self._limits.head_timeout, self._limits.idle_timeout
            self._wait_for_client(drain if self._in_body else head if self._in_head else idle)

    def pause_writing(self) -> None:
        """The client has yet to take what it was sent."""
        self._unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client took what it was sent."""
        self.taken_at = self.loop.time()
        super().resume_writing()

    def _owes_answer(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_for_client(self, seconds: float) -> None:
        self._turn_since = self.loop.time()
        self._deadline = self._turn_since + seconds

    def _break_off(self, cycle: RequestResponseCycle) -> None:
        """Close without the end of an answer that has begun, so that nobody takes it for whole."""
        self._deaf = True
        cycle.disconnected = True
        self.transport.close()

    def _reject(self, status: int, code: str, detail: str) -> None:
        """Make the parser stop, and `data_received` refuse."""
        self._refusal = (status, code, detail)
        raise _Refusal

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer for the application, as far as this leaves the answers to earlier requests whole; then close."""
        self._deaf = True
        self._on_refused(code)
        if self._owes_answer() and not self._in_body:  # what cannot be read is the request behind
            self.cycle.keep_alive = False
            return
        if self._in_body:
            if not self._owes_answer() or self.cycle.response_started or self.pipeline:
                self.transport.close()  # a second answer would pass for that to another request
                return
            self.cycle.scope["state"]["refused"] = status
            self.cycle.disconnected = True  # the application waits for the rest of the body
            self.cycle.message_event.set()
        answer = problem(status, code, detail, uuid.uuid4().hex)
        fields = [*self.server_state.default_headers, *answer.raw_headers, (b"connection", b"close")]
        head = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
        self.transport.write(STATUS_LINE[status] + head + b"\r\n" + bytes(answer.body))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._wait_for_client(_LINGER)
