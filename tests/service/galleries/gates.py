"""A search that runs until a test ends it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from service.index.gallery_index import GalleryIndex
from service.index.metadata import Filter
from tests.service.galleries.store import DIM


@contextmanager
def search_held(memory: GalleryIndex) -> Iterator[threading.Event]:
    """Run a search of this gallery until the event is set or the context ends."""
    inside, go_on = threading.Event(), threading.Event()
    nearest = memory.segment.search

    def held(*args: Any) -> Any:
        inside.set()
        assert go_on.wait(60)
        return nearest(*args)

    memory.segment.search = held  # type: ignore[method-assign]
    search = threading.Thread(target=lambda: memory.search([np.eye(1, DIM, dtype=np.float32)], 1, Filter()))
    search.start()
    assert inside.wait(60)
    memory.segment.search = nearest  # type: ignore[method-assign]
    try:
        yield go_on
    finally:
        go_on.set()
        search.join()


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 60))
