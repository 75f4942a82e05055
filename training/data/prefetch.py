"""Computes results in the background before they are needed, in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

AHEAD = 4  # so that one slow file does not stall the device
LOADERS = 2  # so that decoding threads have work while a batch is put together

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(load: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result]:
    """`load` of each item, in order; up to `AHEAD` results are computed in advance, on `LOADERS` threads.

    Raises what `load` raises. Close the generator to cancel loads that have not started.
    """
    left = iter(items)
    loader = ThreadPoolExecutor(LOADERS, thread_name_prefix="prefetch")
    try:
        pending: deque[Future[Result]] = deque(loader.submit(load, item) for item in islice(left, AHEAD))
        while pending:
            result = pending.popleft().result()
            pending.extend(loader.submit(load, item) for item in islice(left, 1))
            yield result
    finally:
        loader.shutdown(cancel_futures=True)
