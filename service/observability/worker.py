"""Background work in a loop that no failure ends. Readiness and metrics show whether the last round succeeded."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from service.observability.metrics import Metrics

log = logging.getLogger(__name__)

_LONGEST_PAUSE = 60.0  # seconds between rounds that fail, unless rounds are further apart anyway


class WorkerHealth:
    """Whether some background work fails at the moment."""

    def __init__(self, name: str, metrics: Metrics) -> None:
        self.name = name
        self.failing = False
        self._failures = metrics.worker_failures.labels(name)
        self._state = metrics.worker_failing.labels(name)

    def report(self, *, failed: bool) -> None:
        """Say how a round ended."""
        self.failing = failed
        self._failures.inc(failed)
        self._state.set(failed)


class Worker:
    """Calls `work` again and again, on one event loop.

    `work` returns whether all went well: where it has reported the failures of single items itself, the next round
    comes as usual. An exception is logged, and the pause before the next round is doubled.
    """

    def __init__(self, name: str, work: Callable[[], Awaitable[bool]], every: float, metrics: Metrics) -> None:
        """`every` is the pause between rounds, in seconds; the first begins at once."""
        self.health = WorkerHealth(name, metrics)
        self._work = work
        self._every = every

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Within it the work goes on; at the end a round is cancelled."""
        task = asyncio.create_task(self._run(), name=self.health.name)
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        pause = self._every
        while True:
            try:
                failed = not await self._work()
                pause = self._every
            except Exception:
                failed = True
                log.exception("%s failed; the next attempt is in %g s", self.health.name, pause)
            self.health.report(failed=failed)
            await asyncio.sleep(pause)
            if failed:
                pause = max(self._every, min(2 * pause, _LONGEST_PAUSE))
