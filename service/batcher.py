"""Micro-batching: single items wait a moment for company, and one call answers all of them."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True)
class _Job(Generic[Item, Result]):
    item: Item
    future: "asyncio.Future[Result]"
    since: float = field(default_factory=time.monotonic)


class Batcher(Generic[Item, Result]):
    """Collects items on the event loop and runs `run(items) -> results` on worker threads, several items at a time.

    A batch starts when it is full or when its oldest item has waited `max_delay` seconds. An item whose waiter was
    cancelled leaves the queue. When `run` raises, the items of that batch get the error and the next batch runs.
    The queue has no bound of its own: whoever submits decides how many items there may be.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result]],
        *,
        name: str,
        max_batch: int,
        max_delay: float,
        workers: int = 1,
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._max_delay = max_delay
        self._queue: deque[_Job[Item, Result]] = deque()
        self._arrived = asyncio.Event()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._loops = [asyncio.create_task(self._serve(), name=f"{name}-{n}") for n in range(workers)]
        for task in self._loops:
            task.add_done_callback(self._ended)
        self._stopped: BaseException | None = None

    @property
    def waiting(self) -> int:
        """Items not yet taken into a batch."""
        return len(self._queue)

    async def submit(self, item: Item) -> Result:
        """The result for one item, or the error of its batch."""
        if self._stopped is not None:
            raise RuntimeError("the batcher has stopped") from self._stopped
        job: _Job[Item, Result] = _Job(item, asyncio.get_running_loop().create_future())
        self._queue.append(job)
        self._arrived.set()
        return await job.future

    async def close(self) -> None:
        """Stop taking items; those still waiting are cancelled."""
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._threads.shutdown()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._collect()
            if not batch:
                continue
            try:
                results = await loop.run_in_executor(self._threads, self._run, [job.item for job in batch])
                answers = list(zip(batch, results, strict=True))
            except Exception as error:
                for job in batch:
                    if not job.future.done():
                        job.future.set_exception(error)
            else:
                for job, result in answers:
                    if not job.future.done():
                        job.future.set_result(result)

    async def _collect(self) -> list[_Job[Item, Result]]:
        while not self._queue:
            self._arrived.clear()
            await self._arrived.wait()
        start_by = self._queue[0].since + self._max_delay
        while 0 < len(self._queue) < self._max_batch and (left := start_by - time.monotonic()) > 0:
            self._arrived.clear()
            try:
                async with asyncio.timeout(left):
                    await self._arrived.wait()
            except TimeoutError:
                break
        batch: list[_Job[Item, Result]] = []
        while self._queue and len(batch) < self._max_batch:
            job = self._queue.popleft()
            if not job.future.done():
                batch.append(job)
        return batch

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """A loop ends only by close(); any other end is a fault that must be seen, not a queue that never moves."""
        error = None if task.cancelled() else task.exception()
        self._stopped = error or asyncio.CancelledError("closed")
        if error is not None:
            log.critical("a batching loop ended", exc_info=error)
        while self._queue:
            job = self._queue.popleft()
            if not job.future.done():
                job.future.set_exception(RuntimeError("the batcher has stopped")) if error else job.future.cancel()
