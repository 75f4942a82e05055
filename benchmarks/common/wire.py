"""An HTTP client with little overhead, because it shares the machine with the server that it measures.

With hundreds of open requests, httpx takes 14 ms of CPU time per request, because its pool examines all of them. At ten
times the server's capacity, the client would be the bottleneck.
"""

import asyncio
import re
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with Content-Length."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header."""
        found = re.search(rb"\r\n" + re.escape(name.encode()) + rb": *([^\r]*)", self.head, re.IGNORECASE)
        return found[1].decode("latin-1") if found else None


def get(url: str, path: str) -> bytes:
    """The bytes of a request."""
    return f"GET {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n\r\n".encode()


def post(url: str, path: str, body: bytes, **headers: str) -> bytes:
    """The bytes of a request; `content_type` is Content-Type."""
    given = {"Host": urlsplit(url).netloc, "Content-Length": str(len(body))}
    given |= {name.replace("_", "-").title(): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


class Connection(asyncio.Protocol):
    """A persistent connection with one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._ends: int | None = None  # end of the response in the buffer; None before its head is complete
        self._answer: asyncio.Future[Answer] | None = None

    @property
    def usable(self) -> bool:
        """True if the connection can send another request."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes) -> Answer:
        """Send a request and wait for its response. Raises ConnectionError if the server closes the connection."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._buffer += data
        if self._ends is None and (blank := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._buffer, 0, blank)
            self._ends = blank + 4 + (int(length[1]) if length else 0)
        if self._ends is not None and len(self._buffer) >= self._ends and self._answer is not None:
            head, _, body = bytes(self._buffer[: self._ends]).partition(b"\r\n\r\n")
            self._buffer.clear()
            self._ends = None
            if not self._answer.done():
                self._answer.set_result(Answer(int(head[9:12]), head, body))

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError(f"no answer: {exc or 'the server hung up'}"))


class Wire:
    """A pool of connections to one server, one for each concurrent request."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._host, self._port = str(urlsplit(url).hostname), urlsplit(url).port or 80
        self._idle: list[Connection] = []

    async def ask(self, request: bytes) -> Answer:
        """Send a request on an idle or new connection. Returns the response; raises OSError."""
        connection = await self._connection()
        answer = await connection.ask(request)
        self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close the connection."""
        for connection in self._idle:
            connection.close()

    async def _connection(self) -> Connection:
        while self._idle:
            if (connection := self._idle.pop()).usable:
                return connection
        _, made = await asyncio.get_running_loop().create_connection(Connection, self._host, self._port)
        return made


async def watch_lag(samples: list[float], every: float = 0.01) -> None:
    """Append the lateness of this event loop in seconds, repeatedly, until cancelled."""
    while True:
        due = time.monotonic() + every
        await asyncio.sleep(every)
        samples.append(time.monotonic() - due)
