"""An executor that runs its calls one after another on the threads of a shared pool."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future


class SerialExecutor:
    """Runs calls in the order of submission, never two at once. Many instances share one pool of threads."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._calls: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._running = False

    def submit(self, call: Callable[[], None]) -> "Future[None]":
        """Queue a call. If it raises, its future holds the exception, and the next call runs."""
        future: Future[None] = Future()
        with self._lock:
            self._calls.append((call, future))
            start, self._running = not self._running, True
        if start:
            self._pool.submit(self._run)
        return future

    def _run(self) -> None:
        while (queued := self._next()) is not None:
            call, future = queued
            try:
                call()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)

    def _next(self) -> "tuple[Callable[[], None], Future[None]] | None":
        with self._lock:
            if self._calls:
                return self._calls.popleft()
            self._running = False
            return None
