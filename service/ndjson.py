"""Lines of a body while it arrives: one task feeds the chunks, another takes the lines."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

Line = bytes | None  # None: it was longer than accepted, and dropped as it arrived


class Lines:
    """Lives on one event loop, and holds a bounded number of bytes."""

    def __init__(self, longest: int, most: int, taken: Callable[[int], None]) -> None:
        """Bytes of a line, and bytes of lines that wait; `taken` is told how many bytes are no longer held here."""
        self._longest = longest
        self._most = most
        self._taken = taken
        self._lines: deque[Line] = deque()
        self._waiting = 0
        self._rest = bytearray()
        self._dropping = False
        self._ended = False
        self._error: Exception | None = None
        self._changed = asyncio.Condition()

    async def feed(self, chunk: bytes) -> None:
        """Add a chunk of the body; waits where too much waits already."""
        *ends, tail = chunk.split(b"\n")
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting < self._most)
            for end in ends:
                self._begin(end, 1)
                self._add(None if self._dropping else bytes(self._rest))
            self._begin(tail, 0)
            self._changed.notify_all()

    async def end(self, error: Exception | None = None) -> None:
        """The body is complete, and its last line may lack the newline; or no more of it can be had."""
        async with self._changed:
            self._error = error
            if error is None and (self._rest or self._dropping):
                self._add(None if self._dropping else bytes(self._rest))
            self._ended = True
            self._changed.notify_all()

    async def some(self, count: int) -> list[Line]:
        """What has arrived, at most so many lines, at least one; none at the end of the body. Raises what ended it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._lines or self._ended)
            if self._error is not None and not self._lines:
                raise self._error
            lines = [self._lines.popleft() for _ in range(min(count, len(self._lines)))]
            size = sum(map(_size, lines))
            self._waiting -= size
            self._taken(size)
            self._changed.notify_all()
        return lines

    async def give_back(self, lines: Sequence[Line]) -> None:
        """Put lines back that were taken too early."""
        async with self._changed:
            self._lines.extendleft(reversed(lines))
            size = sum(map(_size, lines))
            self._waiting += size
            self._taken(-size)

    def _begin(self, part: bytes, newline: int) -> None:
        if self._dropping or len(self._rest) + len(part) > self._longest:
            self._taken(len(self._rest) + len(part) + newline)
            self._dropping = True
            self._rest.clear()
        else:
            self._rest += part

    def _add(self, line: Line) -> None:
        self._lines.append(line)
        self._waiting += _size(line)
        self._dropping = False
        self._rest.clear()


def _size(line: Line) -> int:
    return 0 if line is None else len(line) + 1
