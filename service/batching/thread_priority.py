"""Who computes when and where: threads that compute step back behind the event loop, and none of them shares a core."""

import os
import sys
from pathlib import Path

ENGINE = 10
DECODE = 5  # parts of it hold Python's lock, for which the event loop may wait: so it goes before the engine


def lower_priority(by: int = ENGINE) -> None:
    """Lower the priority of the calling thread and of those that it will start, such as the pool of a runtime.

    With as many computing threads as cores, the event loop would wait its turn behind them before it reads a request,
    refuses one or hands out an answer. Only Linux gives each thread a priority of its own; elsewhere nothing changes.
    """
    if sys.platform == "linux":
        os.nice(by)


def isolate_engine_driver() -> None:
    """As `lower_priority`, for the thread that drives the engine; it keeps off the cores of the engine's own threads.

    ONNX Runtime binds its threads to a core each, and leaves one core for its caller, but does not bind that one. Where
    the scheduler puts it onto the core of another they take turns, and a batch takes three times as long.
    """
    lower_priority()
    if sys.platform == "linux":
        every = os.sched_getaffinity(0)
        bound = [cores for task in Path("/proc/self/task").iterdir() if (cores := _cores_of(int(task.name))) < every]
        os.sched_setaffinity(0, every.difference(*bound) or every)


def _cores_of(thread: int) -> set[int]:
    try:
        return os.sched_getaffinity(thread)
    except ProcessLookupError:  # it has just ended
        return os.sched_getaffinity(0)
