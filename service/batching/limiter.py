"""A limit on work in progress. Nothing queues at the limit: the caller gets Overloaded with a time to retry after."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Gauge

from service.core.errors import Overloaded


class ConcurrencyLimiter:
    """Counts items in progress. Use it on one event loop: it takes no lock."""

    def __init__(self, what: str, limit: int, gauge: Gauge) -> None:
        """`what` names the items in error messages. `gauge` shows the number in progress."""
        self._what = what
        self._limit = limit
        self._gauge = gauge
        self._active = 0
        self._mean_seconds = 0.0  # moving average of the time in progress; at the limit, the time to drain it

    def check_capacity(self, count: int = 1) -> None:
        """Raise Overloaded if `count` more items exceed the limit. It retries after the average time in progress."""
        if self._active + count > self._limit:
            wait = max(1, min(60, math.ceil(self._mean_seconds)))
            raise Overloaded(f"{self._active} {self._what} are waiting; try again in {wait} s", wait)

    @property
    def busy(self) -> bool:
        """Whether any item is in progress."""
        return self._active > 0

    @contextmanager
    def admit(self, count: int = 1) -> Iterator[None]:
        """Count `count` items as in progress inside the context. Raises Overloaded."""
        self.check_capacity(count)
        since = time.monotonic()
        self._active += count
        self._gauge.set(self._active)
        try:
            yield
        finally:
            self._active -= count
            self._gauge.set(self._active)
            self._mean_seconds += 0.1 * (time.monotonic() - since - self._mean_seconds)
