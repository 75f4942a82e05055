"""Lines of a body while it arrives: one task reads it, another takes the lines and says when it has done with them."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from starlette.types import Message, Receive

from service.api.middleware.body_budget import Share
from service.core.errors import ClientDisconnected, DeadlineExceeded, Overloaded

Line = bytes | None  # None: it was longer than accepted, and dropped

_WAITING = 8 * 2**20  # bytes of whole lines that wait


class LineBuffer:
    """Bytes that are cut into lines only when these are taken: many short lines cost no more than their bytes."""

    def __init__(self, longest: int) -> None:
        """`longest` is bytes of a line, without its newline."""
        self.whole = 0  # bytes of whole lines
        self._longest = longest
        self._data = bytearray()  # whole lines, and the beginning of the next
        self._fed = self._taken = 0  # number of whole lines, since the beginning
        self._too_long: set[int] = set()  # of these, which were dropped as they arrived
        self.dropping = False  # the next line is too long, and its beginning dropped

    def feed(self, chunk: bytes) -> int:
        """Add a chunk. Returns how many bytes are not kept, as their line is too long."""
        dropped = 0
        if self.dropping:
            end = chunk.find(b"\n")
            dropped = len(chunk) if end < 0 else end
            chunk = chunk[dropped:]
            if chunk:
                self.dropping = False
                self._too_long.add(self._fed)
        if (end := chunk.rfind(b"\n")) >= 0:
            self.whole = len(self._data) + end + 1
            self._fed += chunk.count(b"\n")
        self._data += chunk
        if (rest := len(self._data) - self.whole) > self._longest:
            self.dropping = True
            del self._data[self.whole :]
            dropped += rest
        return dropped

    def end(self) -> int:
        """Add the newline that the last line may lack. Returns how many bytes that were."""
        if len(self._data) == self.whole and not self.dropping:
            return 0
        self.feed(b"\n")
        return 1

    def take(self, count: int) -> tuple[list[Line], int]:
        """At most `count` whole lines, and how many bytes of them are not kept, as the line is too long."""
        lines: list[Line] = []
        start = dropped = 0
        while len(lines) < count and start < self.whole:
            end = self._data.index(b"\n", start)
            if self._taken in self._too_long or end - start > self._longest:
                self._too_long.discard(self._taken)
                lines.append(None)
                dropped += end - start
            else:
                lines.append(bytes(self._data[start:end]))
            self._taken += 1
            start = end + 1
        del self._data[:start]
        self.whole -= start
        return lines, dropped


class BodyLines:
    """Lives on one event loop. The bytes of a line are held of the request's share until it is done with."""

    def __init__(self, share: Share, longest: int, timeout: float, *, open_end: bool) -> None:
        """`longest` is bytes of a line, `timeout` seconds for which the client may take to send one; with `open_end`
        the last line may lack its newline, else such a line is none.
        """
        share.stream()
        self._share = share
        self._timeout = self._left = timeout
        self._buffer = LineBuffer(longest)
        self._open_end = open_end
        self._unread: deque[Line] = deque()
        self._in_work = 0  # lines that were taken and are not done
        self._ended = False
        self._error: Exception | None = None
        self._changed = asyncio.Condition()

    async def read(self, receive: Receive) -> None:
        """Read the body to its end, and no further ahead than is accepted. Raises ClientDisconnected."""
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
        """Inside, the body is read. Where its client is gone `take` raises ClientDisconnected."""
        task = asyncio.create_task(self.read(receive))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, ClientDisconnected):
                await task

    async def take(self, count: int) -> list[Line]:
        """What has arrived, at most `count` lines, at least one; none at the end of the body. Raises what ended it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._unread or self._buffer.whole or self._ended)
            lines = [self._unread.popleft() for _ in range(min(count, len(self._unread)))]
            more, dropped = self._buffer.take(count - len(lines))
            self._share.release(dropped)
            self._changed.notify_all()
        lines += more
        if self._error is not None and not lines:
            raise self._error
        self._in_work += len(lines)
        return lines

    def unread(self, lines: Sequence[Line]) -> None:
        """Put back lines that were taken last."""
        self._unread.extendleft(reversed(lines))
        self._in_work -= len(lines)

    def done(self, lines: Sequence[Line]) -> None:
        """These lines are worked on to the end."""
        self._in_work -= len(lines)
        self._share.release(sum(1 if line is None else len(line) + 1 for line in lines))

    async def _receive(self, receive: Receive) -> Message:
        """The time that a client may take runs while it is waited for: not while it waits for results of its lines."""
        while True:
            since = time.monotonic()
            try:
                async with asyncio.timeout(self._left):
                    message = await receive()
            except TimeoutError:
                if not (self._in_work or self._buffer.whole):
                    raise DeadlineExceeded(
                        f"no line arrived within {self._timeout:g} s; send the rest as another stream"
                    ) from None
                self._left = self._timeout
            else:
                self._left -= time.monotonic() - since
                return message

    async def _feed(self, chunk: bytes) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._buffer.whole < _WAITING)
            self._share.release(self._buffer.feed(chunk))
            self._changed.notify_all()

    async def _end(self, error: Exception | None = None) -> None:
        """The body is complete; or no more of it can be had, and then its unfinished line never was one."""
        async with self._changed:
            self._error = error
            if error is None and (self._open_end or self._buffer.dropping):
                self._share.release(-self._buffer.end())
            self._ended = True
            self._changed.notify_all()
