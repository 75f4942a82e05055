"""Micro-batching: single items wait a moment for company, and one call answers all of them."""

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
from service.observability import server_timing as timing
from service.observability import tracing

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class _Job(Generic[Item, Result]):
    item: Item
    future: "asyncio.Future[Result]"
    since: float = field(default_factory=time.monotonic)
    within: Span | None = field(default_factory=tracing.current)
    parts: timing.Parts | None = field(default_factory=timing.current)


class Batcher(Generic[Item, Result]):
    """Threads that run `run(items) -> results` for items submitted on one event loop, several items at a time.

    A batch starts when it is full, when no other item is being made, or when its oldest has waited `max_delay` seconds.
    Before that it gives those whom the last batch has answered the time to come back: `patience` times what that batch
    took, at most. Callers who ask again and again then come to share one batch instead of taking turns.

    An item whose waiter was cancelled leaves the queue. When `run` raises an Exception, the items of that batch get the
    error and the next batch runs. Any other error ends the thread, and the batcher with it: every item gets NotReady
    from then on, and `require_running` says why. The threads take their batches themselves: between two of them nothing
    waits for the event loop. The queue has no bound of its own: whoever submits decides how many items there may be.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Result]],
        *,
        name: str,
        max_batch: int,
        max_delay: float,
        workers: int = 1,
        patience: float = 0.0,
        begin: Callable[[], None] = lower_priority,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """Each thread calls `begin` first; a thread that an error ends calls `failed`."""
        self._run = run
        self._name = name
        self._max_batch = max_batch
        self._max_delay = max_delay
        self._patience = patience
        self._begin = begin
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Job[Item, Result]] = deque()
        self._preparing: set[asyncio.Future[Result]] = set()  # of items that are being made
        self._changed = threading.Condition()
        self._company, self._company_until = 0, 0.0  # items that may be there soon, and how long to wait for them
        self._stopped: NotReady | None = None  # why nothing is accepted any more
        self._threads = [threading.Thread(target=self._work, name=f"{name}-{n}") for n in range(workers)]
        for thread in self._threads:
            thread.start()

    def require_running(self) -> None:
        """Raises NotReady once the batcher has stopped, with the reason."""
        if self._stopped is not None:
            raise NotReady(str(self._stopped))

    async def submit(self, item: Item) -> Result:
        """The result for one item, or the error of its batch. Raises NotReady once the batcher has stopped."""
        future: asyncio.Future[Result] = self._loop.create_future()
        with self._changed:
            self.require_running()
            self._queue.append(_Job(item, future))
            self._changed.notify()
        with tracing.span(self._name):
            return await future

    async def submit_prepared(self, makers: Executor, make: Callable[[], Item]) -> Result:
        """As `submit`, with an item that a thread of `makers` makes first. Raises what `make` does, too."""
        future: asyncio.Future[Result] = self._loop.create_future()
        with self._changed:
            self.require_running()
            self._preparing.add(future)
        making = makers.submit(copy_context().run, self._make, make, future)
        try:
            with tracing.span(self._name):
                return await future
        finally:
            if making.cancel():  # it had not begun
                self._arrived(future)

    async def close(self) -> None:
        """Finish the batches that run; those who still wait get NotReady."""
        self._stop(NotReady("the service is stopping"))
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        await asyncio.sleep(0)  # the answers of the last batches are on their way to the loop

    def _work(self) -> None:
        batch: list[_Job[Item, Result]] = []
        try:
            self._begin()
            while batch := self._collect():
                began = time.monotonic()
                self._answer(batch)
                self._expect_back(batch, time.monotonic() - began)
        except BaseException as error:  # a thread that ends unnoticed would leave a queue that never moves
            log.critical("the %s thread ended; restart the service", self._name, exc_info=True)
            self._failed()
            why = NotReady(f"the {self._name} thread ended ({type(error).__name__}); restart the service")
            self._stop(why, [job.future for job in batch])

    def _make(self, make: Callable[[], Item], future: "asyncio.Future[Result]") -> None:
        if future.done():
            self._arrived(future)
            return
        try:
            with tracing.part("decode"):
                item = make()
            job: _Job[Item, Result] = _Job(item, future)
        except BaseException as error:
            self._arrived(future)
            if not isinstance(error, Exception):  # it would end the event loop
                error = RuntimeError(f"{type(error).__name__} while an item was made")
            self._loop.call_soon_threadsafe(_fail, [future], error)
        else:
            self._arrived(future, job)

    def _arrived(self, future: "asyncio.Future[Result]", job: _Job[Item, Result] | None = None) -> None:
        with self._changed:
            self._preparing.discard(future)
            if job is not None and self._stopped is None:
                self._queue.append(job)
            self._changed.notify()

    def _collect(self) -> list[_Job[Item, Result]]:
        """The next batch; empty when the batcher has stopped."""
        batch: list[_Job[Item, Result]] = []
        with self._changed:
            while not batch:
                self._changed.wait_for(lambda: self._queue or self._stopped is not None)
                if self._stopped is not None:
                    return []
                made_until = self._queue[0].since + self._max_delay
                self._wait(self._company_is_there, self._company_until)
                self._wait(self._nobody_is_coming, made_until)
                while self._queue and len(batch) < self._max_batch:
                    job = self._queue.popleft()
                    if not job.future.done():
                        batch.append(job)
        return batch

    def _wait(self, enough: Callable[[], bool], until: float) -> None:
        if (left := until - time.monotonic()) > 0:
            self._changed.wait_for(enough, left)

    def _company_is_there(self) -> bool:
        return len(self._queue) >= min(self._company, self._max_batch) or self._stopped is not None

    def _nobody_is_coming(self) -> bool:
        return len(self._queue) >= self._max_batch or not self._preparing or self._stopped is not None

    def _expect_back(self, answered: list[_Job[Item, Result]], seconds: float) -> None:
        with self._changed:
            self._company = len(answered) + len(self._queue)
            self._company_until = time.monotonic() + self._patience * seconds

    def _answer(self, batch: list[_Job[Item, Result]]) -> None:
        try:
            with tracing.batch(self._name, batch):
                answers = list(zip(batch, self._run([job.item for job in batch]), strict=True))
        except Exception as error:
            self._loop.call_soon_threadsafe(_fail, [job.future for job in batch], error)
        else:
            self._loop.call_soon_threadsafe(_resolve, answers)

    def _stop(self, why: NotReady, running: "Sequence[asyncio.Future[Result]]" = ()) -> None:
        with self._changed:
            self._stopped = self._stopped or why
            waiting = [*running, *self._preparing, *(job.future for job in self._queue)]
            self._queue.clear()
            self._changed.notify_all()
        self._loop.call_soon_threadsafe(_fail, waiting, why)


def _resolve(answers: "list[tuple[_Job[Item, Result], Result]]") -> None:
    for job, result in answers:
        if not job.future.done():
            job.future.set_result(result)


def _fail(futures: "list[asyncio.Future[Result]]", error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
