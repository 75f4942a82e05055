"""Results that are computed before they are asked for, in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

AHEAD = 4  # one slow file does not stop the device

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(load: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result]:
    """`load` of each item, in order and on one thread; up to `AHEAD` results are ready before they are asked for.

    Raises what `load` raises. Close the generator to drop what has not begun.
    """
    left = iter(items)
    loader = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        pending: deque[Future[Result]] = deque(loader.submit(load, item) for item in islice(left, AHEAD))
        while pending:
            result = pending.popleft().result()
            pending.extend(loader.submit(load, item) for item in islice(left, 1))
            yield result
    finally:
        loader.shutdown(cancel_futures=True)
