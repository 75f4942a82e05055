"""Lines of a body while it arrives: one task reads the body, another one takes lines and releases them."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from starlette.types import Message, Receive

from service.api.middleware.body_budget import Share
from service.core.errors import ClientDisconnected, DeadlineExceeded, Overloaded

Line = bytes | None  # None: the line was too long and was dropped

_MAX_WAITING = 8 * 2**20  # bytes of complete lines that wait to be taken


class LineBuffer:
    """Splits bytes into lines only when they are taken, so that many short lines cost no more than their bytes."""

    def __init__(self, max_line: int) -> None:
        """`max_line` is in bytes, without the newline."""
        self.complete = 0  # bytes of complete lines
        self._max_line = max_line
        self._data = bytearray()  # complete lines, and the beginning of the next one
        self._fed = self._taken = 0  # numbers of complete lines since the start
        self._too_long: set[int] = set()  # the numbers of lines that were dropped while they arrived
        self.is_dropping = False  # the next line is too long, and its beginning was dropped

    def feed(self, chunk: bytes) -> int:
        """Add a chunk. Returns the number of bytes that were dropped because their line is too long."""
        dropped = 0
        if self.is_dropping:
            end = chunk.find(b"\n")
            dropped = len(chunk) if end < 0 else end
            chunk = chunk[dropped:]
            if chunk:
                self.is_dropping = False
                self._too_long.add(self._fed)
        if (end := chunk.rfind(b"\n")) >= 0:
            self.complete = len(self._data) + end + 1
            self._fed += chunk.count(b"\n")
        self._data += chunk
        if (rest := len(self._data) - self.complete) > self._max_line:
            self.is_dropping = True
            del self._data[self.complete :]
            dropped += rest
        return dropped

    def end(self) -> int:
        """Add the newline that the last line may lack. Returns the number of bytes that were added."""
        if len(self._data) == self.complete and not self.is_dropping:
            return 0
        self.feed(b"\n")
        return 1

    def take(self, count: int) -> tuple[list[Line], int]:
        """At most `count` complete lines, and the number of bytes that were dropped because their line is too long."""
        lines: list[Line] = []
        start = dropped = 0
        while len(lines) < count and start < self.complete:
            end = self._data.index(b"\n", start)
            if self._taken in self._too_long or end - start > self._max_line:
                self._too_long.discard(self._taken)
                lines.append(None)
                dropped += end - start
            else:
                lines.append(bytes(self._data[start:end]))
            self._taken += 1
            start = end + 1
        del self._data[:start]
        self.complete -= start
        return lines, dropped


class BodyLines:
    """Use it on one event loop. The bytes of a line count in the share of the request until `done` is called for it."""

    def __init__(self, share: Share, max_line: int, timeout: float, *, is_open_ended: bool) -> None:
        """`max_line` is in bytes. `timeout` is the time in seconds in which the client must send a line.

        With `is_open_ended` the last line may lack its newline. Otherwise such a line is ignored.
        """
        share.begin_stream()
        self._share = share
        self._timeout = self._left = timeout
        self._buffer = LineBuffer(max_line)
        self._is_open_ended = is_open_ended
        self._unread: deque[Line] = deque()
        self._in_progress = 0  # lines that were taken and are not done
        self._ended = False
        self._error: Exception | None = None
        self._changed = asyncio.Condition()

    async def read(self, receive: Receive) -> None:
        """Read the body to its end, and no further ahead than the limits allow. Raises ClientDisconnected."""
        try:
            while True:
                message = await self._receive(receive)
                if message["type"] == "http.disconnect":
                    raise ClientDisconnected("the client closed the connection")
                chunk = message.get("body", b"")
                if b"\n" in chunk:
                    self._left = self._timeout
                while chunk:
                    size = await self._share.take_some(len(chunk))
                    await self._feed(chunk[:size])
                    chunk = chunk[size:]
                if not message.get("more_body", False):
                    break
        except (DeadlineExceeded, Overloaded) as error:
            await self._end(error)
        except ClientDisconnected as error:
            await self._end(error)
            raise
        else:
            await self._end()

    @asynccontextmanager
    async def reading(self, receive: Receive) -> AsyncIterator[None]:
        """Read the body while the context is open. If the client disconnects, `take` raises ClientDisconnected."""
        task = asyncio.create_task(self.read(receive))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, ClientDisconnected):
                await task

    async def take(self, count: int) -> list[Line]:
        """1 to `count` lines that have arrived; none at the end of the body. Raises the error that ended the body."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._unread or self._buffer.complete or self._ended)
            lines = [self._unread.popleft() for _ in range(min(count, len(self._unread)))]
            more, dropped = self._buffer.take(count - len(lines))
            self._share.release(dropped)
            self._changed.notify_all()
        lines += more
        if self._error is not None and not lines:
            raise self._error
        self._in_progress += len(lines)
        return lines

    def unread(self, lines: Sequence[Line]) -> None:
        """Put back the lines that were taken last."""
        self._unread.extendleft(reversed(lines))
        self._in_progress -= len(lines)

    def done(self, lines: Sequence[Line]) -> None:
        """Release lines that were processed."""
        self._in_progress -= len(lines)
        self._share.release(sum(1 if line is None else len(line) + 1 for line in lines))

    async def _receive(self, receive: Receive) -> Message:
        """The next message. The timeout does not count the time in which the client waits for results of its lines."""
        while True:
            since = time.monotonic()
            try:
                async with asyncio.timeout(self._left):
                    message = await receive()
            except TimeoutError:
                if not (self._in_progress or self._buffer.complete):
                    raise DeadlineExceeded(
                        f"no line arrived within {self._timeout:g} s; send the rest in a new stream"
                    ) from None
                self._left = self._timeout
            else:
                self._left -= time.monotonic() - since
                return message

    async def _feed(self, chunk: bytes) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._buffer.complete < _MAX_WAITING)
            self._share.release(self._buffer.feed(chunk))
            self._changed.notify_all()

    async def _end(self, error: Exception | None = None) -> None:
        """The body is complete, or has failed: then an incomplete last line is ignored."""
        async with self._changed:
            self._error = error
            if error is None and (self._is_open_ended or self._buffer.is_dropping):
                self._share.release(-self._buffer.end())
            self._ended = True
            self._changed.notify_all()
