"""Limits the bytes of request bodies in memory, over all requests."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Gauge

from service.core.errors import Overloaded

_MAX_WAIT = 60.0  # seconds for which a stream that has begun waits for memory
_POLL_INTERVAL = 0.05  # seconds
_CHUNK = 32 * 2**10  # bytes that a stream takes at a time


class BodyBudget:
    """Use it on one event loop.

    Streams share half of the budget, so that they cannot refuse the other requests. A quarter of this half is divided
    among the possible streams, two quarters are shared by all, and the last quarter is for the oldest stream: otherwise
    incomplete lines of several streams could fill the budget and wait for each other.
    """

    def __init__(self, limit: int, max_streams: int, gauge: Gauge) -> None:
        """`limit` is in bytes."""
        self.max_line = limit // 8  # bytes of one line of a stream: the oldest stream always has memory for it
        self.held = 0
        self.streams: list[Share] = []  # oldest first
        self.own = limit // 8 // max_streams  # bytes that each stream can always take
        self._gauge = gauge
        self._limit = limit
        self._common = limit // 4

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """The share of one request, released at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            share.release(share.held)
            if share.is_stream:
                self.streams.remove(share)

    def add(self, size: int) -> None:
        """Count bytes as held. A negative size releases them."""
        self.held += size
        self._gauge.set(self.held)

    def has_room(self, share: "Share", size: int) -> bool:
        """Whether a request can take `size` more bytes."""
        if self.held + size > self._limit:
            return False
        if not share.is_stream or share.held + size <= self.own:
            return True
        common = sum(max(0, one.held - self.own) for one in self.streams)
        return common + size <= self._common + (self.max_line if share is self.streams[0] else 0)


class Share:
    """The bytes that one request holds."""

    def __init__(self, budget: BodyBudget) -> None:
        self.held = 0
        self.budget = budget

    @property
    def is_stream(self) -> bool:
        """Whether the request processes its body while it arrives, and takes and releases bytes by itself."""
        return self in self.budget.streams

    def begin_stream(self) -> None:
        """Make the request a stream. It waits for memory, because a client cannot retry the middle of a stream."""
        self.budget.streams.append(self)

    def take(self, size: int) -> None:
        """Hold bytes that arrived. Raises Overloaded."""
        if not self.budget.has_room(self, size):
            raise self._overloaded()
        self.release(-size)

    async def take_some(self, size: int) -> int:
        """Wait for memory and hold some of the bytes of a stream; returns their number. Raises Overloaded after a
        minute.
        """
        give_up_at = time.monotonic() + _MAX_WAIT
        while True:
            for chunk in (min(size, _CHUNK), min(size, self.budget.own - self.held)):
                if chunk > 0 and self.budget.has_room(self, chunk):
                    self.release(-chunk)
                    return chunk
            if time.monotonic() >= give_up_at:
                raise self._overloaded()
            await asyncio.sleep(_POLL_INTERVAL)

    def release(self, size: int) -> None:
        """Release bytes that were processed or dropped."""
        self.held -= size
        self.budget.add(-size)

    def _overloaded(self) -> Overloaded:
        return Overloaded(f"request bodies of {self.budget.held:,} bytes are in progress; try again in 1 s", 1)
