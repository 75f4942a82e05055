"""Priority and CPU affinity of computing threads, so that the event loop stays responsive."""

import os
import sys
from pathlib import Path

ENGINE_NICENESS = 10
DECODE_NICENESS = 5  # above the engine: decoding holds the GIL at times, and the event loop may wait for it


def lower_priority(niceness: int = ENGINE_NICENESS) -> None:
    """Raise the niceness of the calling thread, and of threads that it starts later, such as a runtime's pool.

    With as many computing threads as cores, the event loop would otherwise wait for a core before it reads, refuses or
    answers a request. Only Linux has a niceness for each thread; elsewhere this does nothing.
    """
    if sys.platform == "linux":
        os.nice(niceness)


def isolate_engine_driver() -> None:
    """Call `lower_priority`, and keep the calling thread off the cores that the engine's threads are bound to.

    ONNX Runtime binds each of its threads to a core and leaves one core for the calling thread, but does not bind that
    thread. If the scheduler puts it on a bound core, the two threads alternate and a batch takes three times as long.
    """
    lower_priority()
    if sys.platform == "linux":
        every = os.sched_getaffinity(0)
        bound = [cores for task in Path("/proc/self/task").iterdir() if (cores := _affinity(int(task.name))) < every]
        os.sched_setaffinity(0, every.difference(*bound) or every)


def _affinity(thread: int) -> set[int]:
    try:
        return os.sched_getaffinity(thread)
    except ProcessLookupError:  # the thread has just ended
        return os.sched_getaffinity(0)
