"""The response header Server-Timing (W3C): durations of the stages of a request, in milliseconds.

    decode                  decoding of an image
    engine-wait, engine     wait of its pixels in the queue, and the engine call of their batch
    search-wait, search     the same for a query of the index
    commit                  commit of a write, with its wait for the transaction
    total                   from the request head to the response head

Stages may overlap. If a request has several images, each duration is that of the slowest.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Durations = dict[str, float]  # seconds by stage

_durations: ContextVar[Durations | None] = ContextVar("durations", default=None)


def start_request() -> Durations:
    """The durations of a new request. The current task and the tasks that it creates record into them."""
    durations: Durations = {}
    _durations.set(durations)
    return durations


def current() -> Durations | None:
    """The durations of the current task's request, for a thread that works for it; None outside of requests."""
    return _durations.get()


def record(durations: Durations | None, stage: str, seconds: float) -> None:
    """Record the duration of a stage, unless a longer one is recorded."""
    if durations is not None:
        durations[stage] = max(seconds, durations.get(stage, 0.0))


@contextmanager
def measure(stage: str) -> Iterator[None]:
    """Record the duration of the block as a stage of the current request."""
    started = time.monotonic()
    try:
        yield
    finally:
        record(_durations.get(), stage, time.monotonic() - started)


def format_header(durations: Durations, total: float) -> bytes:
    """The value of the header. `total` is in seconds."""
    stages = {**durations, "total": total}
    return ", ".join(f"{stage};dur={1000 * seconds:.2f}" for stage, seconds in stages.items()).encode()
