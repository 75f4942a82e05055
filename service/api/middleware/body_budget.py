"""Bytes of request bodies that are held at a time, over all requests together."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Gauge

from service.core.errors import Overloaded

_PATIENCE = 60.0  # seconds for which a stream that has begun waits for room
_LOOK_AGAIN = 0.05
_PIECE = 32 * 2**10  # bytes for which a stream takes room at a time


class BodyBudget:
    """Lives on one event loop. Streams have half of it, so that they never keep the other requests out.

    Of that half, one quarter is divided among the streams there may be, and two are for all. The last one is for the
    oldest stream: lines that have not arrived whole could fill all the rest, and wait for each other.
    """

    def __init__(self, most: int, max_streams: int, gauge: Gauge) -> None:
        """`most` is bytes."""
        self.longest_line = most // 8  # bytes of one line of a stream; the oldest stream always has room for it
        self.held = 0
        self.streams: list[Share] = []  # the oldest first
        self._gauge = gauge
        self._most = most
        self._common = most // 4
        self.own = most // 8 // max_streams  # bytes that a stream always has room for

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """The share of one request, which is given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            share.release(share.held)
            if share.is_stream:
                self.streams.remove(share)

    def add(self, size: int) -> None:
        """Count bytes that are held, or are no more."""
        self.held += size
        self._gauge.set(self.held)

    def has_room(self, share: "Share", size: int) -> bool:
        """Whether a request may hold more bytes by `size`."""
        if self.held + size > self._most:
            return False
        if not share.is_stream or share.held + size <= self.own:
            return True
        common = sum(max(0, one.held - self.own) for one in self.streams)
        return common + size <= self._common + (self.longest_line if share is self.streams[0] else 0)


class Share:
    """What one request holds, in bytes."""

    def __init__(self, budget: BodyBudget) -> None:
        self.held = 0
        self.budget = budget

    @property
    def is_stream(self) -> bool:
        """Whether the request works on its body while it arrives, and takes and releases bytes by itself."""
        return self in self.budget.streams

    def stream(self) -> None:
        """From now on it is one: in its middle it cannot be told to come back later, so it waits for room."""
        self.budget.streams.append(self)

    def take(self, size: int) -> None:
        """Hold bytes of a request that arrived. Raises Overloaded where there is no room for them."""
        if not self.budget.has_room(self, size):
            raise self._overloaded()
        self.release(-size)

    async def take_some(self, size: int) -> int:
        """Hold some of the bytes of a stream that arrived, once there is room: how many. Raises Overloaded after a
        minute.
        """
        give_up = time.monotonic() + _PATIENCE
        while True:
            for piece in (min(size, _PIECE), min(size, self.budget.own - self.held)):
                if piece > 0 and self.budget.has_room(self, piece):
                    self.release(-piece)
                    return piece
            if time.monotonic() >= give_up:
                raise self._overloaded()
            await asyncio.sleep(_LOOK_AGAIN)

    def _overloaded(self) -> Overloaded:
        return Overloaded(f"bodies of {self.budget.held:,} bytes are being worked on; try again in 1 s", 1)

    def release(self, size: int) -> None:
        """What was made of bytes is on disk, or they are dropped."""
        self.held -= size
        self.budget.add(-size)
