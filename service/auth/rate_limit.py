"""How often a key may ask: a bucket of tokens each, filled steadily, one taken for every request."""

import math
import time
from collections.abc import Callable

from service.core.errors import RateLimited


class TokenBucketLimiter:
    """In memory and of one process: a restart fills every bucket. Used from one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens that were left, and when

    def take(self, name: str, rate: float) -> None:
        """One request under a rate a second; a second's worth may come at once. Raises RateLimited."""
        now = self._clock()
        most = max(1.0, rate)
        left, since = self._buckets.get(name, (most, now))
        left = min(most, left + rate * (now - since))
        if left < 1.0:
            wait = math.ceil((1.0 - left) / rate)
            raise RateLimited(f"the key {name} may send {rate:g} requests a second; try again in {wait} s", wait)
        self._buckets[name] = (left - 1.0, now)
