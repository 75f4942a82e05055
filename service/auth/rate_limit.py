"""A token bucket per API key: it refills at a constant rate, and each request takes one token."""

import math
import time
from collections.abc import Callable

from service.core.errors import RateLimited


class TokenBucketLimiter:
    """In-memory buckets, which a restart refills. Not thread-safe: for use on one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens and the time of the last request

    def take(self, name: str, rate: float) -> None:
        """Count a request of a key with `rate` requests per second.

        The capacity is one second's worth of tokens, but at least one. Raises RateLimited if none is left.
        """
        now = self._clock()
        capacity = max(1.0, rate)
        tokens, since = self._buckets.get(name, (capacity, now))
        tokens = min(capacity, tokens + rate * (now - since))
        if tokens < 1.0:
            wait = math.ceil((1.0 - tokens) / rate)
            raise RateLimited(f"the key {name} may send {rate:g} requests per second; try again in {wait} s", wait)
        self._buckets[name] = (tokens - 1.0, now)
