"""Background workers: a loop that survives failures, with its health in /readyz and in metrics."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from service.observability.metrics import Metrics

log = logging.getLogger(__name__)

_MAX_BACKOFF = 60.0  # seconds between failing rounds, or the interval of the worker if that is longer


class WorkerHealth:
    """Whether the last round of a background worker failed."""

    def __init__(self, name: str, metrics: Metrics) -> None:
        self.name = name
        self.failing = False
        self._failures = metrics.worker_failures.labels(name)
        self._state = metrics.worker_failing.labels(name)

    def report(self, *, failed: bool) -> None:
        """Record the outcome of a round."""
        self.failing = failed
        self._failures.inc(failed)
        self._state.set(failed)


class Worker:
    """Calls `work` repeatedly on one event loop.

    `work` returns whether everything succeeded. If it returns False, because it handled failures of single items, the
    next round starts after the usual interval. If it raises, the exception is logged, and the pause doubles with each
    further failure (exponential back-off).
    """

    def __init__(self, name: str, work: Callable[[], Awaitable[bool]], interval: float, metrics: Metrics) -> None:
        """`interval` is the pause between rounds, in seconds. The first round starts without a pause."""
        self.health = WorkerHealth(name, metrics)
        self._work = work
        self._interval = interval

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the loop inside the context, and cancel it at the end."""
        task = asyncio.create_task(self._run(), name=self.health.name)
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        pause = self._interval
        while True:
            try:
                failed = not await self._work()
                pause = self._interval
            except Exception:
                failed = True
                log.exception("%s failed; the next attempt is in %g s", self.health.name, pause)
            self.health.report(failed=failed)
            await asyncio.sleep(pause)
            if failed:
                pause = max(self._interval, min(2 * pause, _MAX_BACKOFF))
