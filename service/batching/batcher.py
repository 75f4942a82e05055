"""Dynamic batching with a maximum delay: items of concurrent requests run in one call."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from opentelemetry.trace import Span

from service.batching.thread_priority import lower_priority
from service.core.errors import NotReady
from service.observability import server_timing, tracing

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class _Job(Generic[Item, Result]):
    item: Item
    future: "asyncio.Future[Result]"
    since: float = field(default_factory=time.monotonic)
    parent_span: Span | None = field(default_factory=tracing.current)
    durations: server_timing.Durations | None = field(default_factory=server_timing.current)


class Batcher(Generic[Item, Result]):
    """Threads that call `run(items) -> results` with items submitted on one event loop, several items a call.

    A batch starts when it is full, when no further item is in preparation, or when its oldest item has waited
    `max_delay` seconds. Before that, a thread waits up to `linger_factor` times the duration of the last batch for as
    many items as were in that batch or queued behind it. Closed-loop clients, which send their next request as soon as
    they have an answer, then share one batch instead of alternating between two.

    A cancelled item leaves the queue. If `run` raises an Exception, all items of that batch get it, and the next batch
    runs. Any other error ends the thread and stops the batcher: every item gets NotReady from then on, and
    `require_running` raises it with the reason. The threads take batches from the queue themselves, so they never wait
    for the event loop between two batches. The queue is unbounded; the caller limits the number of items.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result]],
        *,
        name: str,
        max_batch: int,
        max_delay: float,
        workers: int = 1,
        linger_factor: float = 0.0,
        on_thread_start: Callable[[], None] = lower_priority,
        on_thread_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Each of the `workers` threads calls `on_thread_start` first, and `on_thread_failure` if an error ends it.

        `name` is the name of threads, spans and timings. `max_delay` is in seconds.
        """
        self._run = run
        self._name = name
        self._max_batch = max_batch
        self._max_delay = max_delay
        self._linger_factor = linger_factor
        self._on_thread_start = on_thread_start
        self._on_thread_failure = on_thread_failure
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Job[Item, Result]] = deque()
        self._preparing: set[asyncio.Future[Result]] = set()  # of items in preparation
        self._changed = threading.Condition()
        self._expected, self._expected_until = 0, 0.0  # how many items to wait for, and until when
        self._stopped: NotReady | None = None  # the reason why the batcher accepts nothing any more
        self._threads = [threading.Thread(target=self._thread_main, name=f"{name}-{n}") for n in range(workers)]
        for thread in self._threads:
            thread.start()

    def require_running(self) -> None:
        """Raises NotReady with the reason once the batcher has stopped."""
        if self._stopped is not None:
            raise NotReady(str(self._stopped))

    async def submit(self, item: Item) -> Result:
        """The result of one item. Raises the error of its batch, or NotReady once the batcher has stopped."""
        future: asyncio.Future[Result] = self._loop.create_future()
        with self._changed:
            self.require_running()
            self._queue.append(_Job(item, future))
            self._changed.notify()
        with tracing.span(self._name):
            return await future

    async def submit_prepared(self, executor: Executor, prepare: Callable[[], Item]) -> Result:
        """As `submit`, of an item that `prepare` returns on a thread of `executor`. Raises the errors of `prepare`."""
        future: asyncio.Future[Result] = self._loop.create_future()
        with self._changed:
            self.require_running()
            self._preparing.add(future)
        preparation = executor.submit(copy_context().run, self._prepare, prepare, future)
        try:
            with tracing.span(self._name):
                return await future
        finally:
            if preparation.cancel():  # it had not started
                self._end_preparation(future)

    async def close(self) -> None:
        """Wait for the batches that run. Items in the queue get NotReady."""
        self._stop(NotReady("the service is stopping"))
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        await asyncio.sleep(0)  # lets the event loop deliver the results of the last batches

    def _thread_main(self) -> None:
        batch: list[_Job[Item, Result]] = []
        try:
            self._on_thread_start()
            while batch := self._collect():
                started = time.monotonic()
                self._run_batch(batch)
                self._expect_next(batch, time.monotonic() - started)
        except BaseException as error:  # without this, items would wait for a thread that no longer exists
            log.critical("the %s thread ended; restart the service", self._name, exc_info=True)
            self._on_thread_failure()
            reason = NotReady(f"the {self._name} thread ended ({type(error).__name__}); restart the service")
            self._stop(reason, [job.future for job in batch])

    def _prepare(self, prepare: Callable[[], Item], future: "asyncio.Future[Result]") -> None:
        if future.done():
            self._end_preparation(future)
            return
        try:
            with tracing.stage("decode"):
                item = prepare()
            job: _Job[Item, Result] = _Job(item, future)
        except BaseException as error:
            self._end_preparation(future)
            if not isinstance(error, Exception):  # raised on the event loop, it would end the loop
                error = RuntimeError(f"{type(error).__name__} during the preparation of an item")
            self._loop.call_soon_threadsafe(_fail, [future], error)
        else:
            self._end_preparation(future, job)

    def _end_preparation(self, future: "asyncio.Future[Result]", job: _Job[Item, Result] | None = None) -> None:
        """`job` is the prepared item, if there is one to run."""
        with self._changed:
            self._preparing.discard(future)
            if job is not None and self._stopped is None:
                self._queue.append(job)
            self._changed.notify()

    def _collect(self) -> list[_Job[Item, Result]]:
        """The next batch; empty once the batcher has stopped."""
        batch: list[_Job[Item, Result]] = []
        with self._changed:
            while not batch:
                self._changed.wait_for(lambda: self._queue or self._stopped is not None)
                if self._stopped is not None:
                    return []
                deadline = self._queue[0].since + self._max_delay
                self._wait(self._has_expected, self._expected_until)
                self._wait(self._is_complete, deadline)
                while self._queue and len(batch) < self._max_batch:
                    job = self._queue.popleft()
                    if not job.future.done():
                        batch.append(job)
        return batch

    def _wait(self, condition: Callable[[], bool], until: float) -> None:
        if (left := until - time.monotonic()) > 0:
            self._changed.wait_for(condition, left)

    def _has_expected(self) -> bool:
        return len(self._queue) >= min(self._expected, self._max_batch) or self._stopped is not None

    def _is_complete(self) -> bool:
        return len(self._queue) >= self._max_batch or not self._preparing or self._stopped is not None

    def _expect_next(self, batch: list[_Job[Item, Result]], seconds: float) -> None:
        with self._changed:
            self._expected = len(batch) + len(self._queue)
            self._expected_until = time.monotonic() + self._linger_factor * seconds

    def _run_batch(self, batch: list[_Job[Item, Result]]) -> None:
        try:
            with tracing.batch(self._name, batch):
                results = list(zip(batch, self._run([job.item for job in batch]), strict=True))
        except Exception as error:
            self._loop.call_soon_threadsafe(_fail, [job.future for job in batch], error)
        else:
            self._loop.call_soon_threadsafe(_resolve, results)

    def _stop(self, reason: NotReady, running: "Sequence[asyncio.Future[Result]]" = ()) -> None:
        with self._changed:
            self._stopped = self._stopped or reason
            waiting = [*running, *self._preparing, *(job.future for job in self._queue)]
            self._queue.clear()
            self._changed.notify_all()
        self._loop.call_soon_threadsafe(_fail, waiting, reason)


def _resolve(results: "list[tuple[_Job[Item, Result], Result]]") -> None:
    for job, result in results:
        if not job.future.done():
            job.future.set_result(result)


def _fail(futures: "list[asyncio.Future[Result]]", error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
