"""Threads that compute step back behind the event loop, which needs little and needs it at once."""

import os
import sys

ENGINE = 10
DECODE = 5  # parts of it hold Python's lock, for which the event loop may wait: so it goes before the engine


def step_back(by: int = ENGINE) -> None:
    """Lower the priority of the calling thread and of those that it will start, such as the pool of a runtime.

    With as many computing threads as cores, the event loop would wait its turn behind them before it reads a request,
    refuses one or hands out an answer. Only Linux gives each thread a priority of its own; elsewhere nothing changes.
    """
    if sys.platform == "linux":
        os.nice(by)
