"""How much is taken in at a time. Over the bound nothing waits: it is told when to come back."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Gauge

from service.core.errors import Overloaded


class ConcurrencyLimiter:
    """Lives on one event loop."""

    def __init__(self, what: str, most: int, gauge: Gauge) -> None:
        self._what = what
        self._most = most
        self._gauge = gauge
        self._inside = 0
        self._stay = 0.0  # seconds that one who leaves now has been inside: while it is full, the time to work it off

    def require_room(self, count: int = 1) -> None:
        """Raises Overloaded where so many more are too many."""
        if self._inside + count > self._most:
            wait = max(1, min(60, math.ceil(self._stay)))
            raise Overloaded(f"{self._inside} {self._what} are waiting; try again in {wait} s", wait)

    @property
    def busy(self) -> bool:
        """Whether anything is worked on."""
        return self._inside > 0

    @contextmanager
    def admit(self, count: int = 1) -> Iterator[None]:
        """Inside, `count` are worked on. Raises Overloaded."""
        self.require_room(count)
        since = time.monotonic()
        self._inside += count
        self._gauge.set(self._inside)
        try:
            yield
        finally:
            self._inside -= count
            self._gauge.set(self._inside)
            self._stay += 0.1 * (time.monotonic() - since - self._stay)
