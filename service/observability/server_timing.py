"""Where the time of a request went, for whoever asked: the header Server-Timing (W3C), in milliseconds.

    decode          of a picture
    engine-wait     of its pixels, in the queue
    engine          of the batch they were in
    search-wait, search     the same of a query
    commit          of what was written, with its wait for others of its group
    total           from the head of the request to the head of its answer

Parts may run beside each other. Of several pictures each part is that of the slowest.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Parts = dict[str, float]  # seconds by name

_parts: ContextVar[Parts | None] = ContextVar("parts", default=None)


def begin() -> Parts:
    """Those of a new request, whose task and the tasks it makes all write to them."""
    parts: Parts = {}
    _parts.set(parts)
    return parts


def current() -> Parts | None:
    """Those of the request that this task works for, if it does; to be written to by another thread."""
    return _parts.get()


def took(parts: Parts | None, name: str, seconds: float) -> None:
    """Note a part that is over."""
    if parts is not None:
        parts[name] = max(seconds, parts.get(name, 0.0))


@contextmanager
def part(name: str) -> Iterator[None]:
    """Note how long this takes."""
    began = time.monotonic()
    try:
        yield
    finally:
        took(_parts.get(), name, time.monotonic() - began)


def header(parts: Parts, total: float) -> bytes:
    """The value of Server-Timing."""
    return ", ".join(f"{name};dur={1000 * seconds:.2f}" for name, seconds in {**parts, "total": total}.items()).encode()
