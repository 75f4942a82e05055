"""Searches on threads, those that ask alike in one pass over the index."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from service.batching.batcher import Batcher
from service.batching.thread_priority import lower_priority
from service.core.types import Vectors
from service.index.gallery_index import GalleryIndex, Grouping, Hit, PersonHit
from service.index.metadata import Filter
from service.index.reranking import Reranking
from service.observability import tracing
from service.observability.metrics import Metrics
from service.observability.worker import WorkerHealth

T = TypeVar("T")

_MAX_BATCH = 32


@dataclass(frozen=True, slots=True, eq=False)
class _Query:
    gallery: GalleryIndex
    vectors: Vectors
    top_k: int
    where: Filter


class Searcher:
    """Lives on one event loop; every core may search. A query is (n, D) unit vectors of one person."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        cores = os.cpu_count() or 1
        self.health = WorkerHealth("search", metrics)
        self._batcher: Batcher[_Query, list[Hit]] = Batcher(
            self._run,
            name="search",
            max_batch=_MAX_BATCH,
            max_delay=0.0,
            workers=cores,
            on_thread_failure=partial(self.health.report, failed=True),
        )
        # What looks at more than the index gives at once runs beside it, so that no quick search waits for it.
        self._alone = ThreadPoolExecutor(cores, thread_name_prefix="search-alone", initializer=lower_priority)

    def require_running(self) -> None:
        """Raises NotReady where a search thread ended."""
        self._batcher.require_running()

    async def hits(self, gallery: GalleryIndex, query: Vectors, top_k: int, where: Filter) -> list[Hit]:
        """The best entries."""
        if len(query) > 1:
            return await self._run_alone(lambda: gallery.search([query], top_k, where)[0])
        return await self._batcher.submit(_Query(gallery, query, top_k, where))

    async def reranked(
        self, gallery: GalleryIndex, query: Vectors, top_k: int, where: Filter, how: Reranking
    ) -> list[Hit]:
        """The best entries after re-ranking."""
        return await self._run_alone(lambda: gallery.search_reranked(query, top_k, where, how))

    async def persons(
        self, gallery: GalleryIndex, query: Vectors, top_k: int, where: Filter, how: Grouping
    ) -> list[PersonHit]:
        """The best persons."""
        named = replace(where, has_person=True)
        return await self._run_alone(lambda: gallery.search_persons(query, top_k, named, how))

    async def close(self) -> None:
        """Stop; waiting searches are cancelled."""
        await self._batcher.close()
        await asyncio.to_thread(self._alone.shutdown, cancel_futures=True)

    async def _run_alone(self, search: Callable[[], T]) -> T:
        def run() -> T:
            with self._timed():
                return search()

        with tracing.stage("search"):
            return await asyncio.get_running_loop().run_in_executor(self._alone, run)

    def _run(self, queries: list[_Query]) -> list[list[Hit]]:
        answers: dict[int, list[Hit]] = {}
        alike: dict[tuple[int, Filter], list[int]] = {}
        for place, query in enumerate(queries):
            alike.setdefault((id(query.gallery), query.where), []).append(place)
        with self._timed():
            for places in alike.values():
                group = [queries[place] for place in places]
                deepest = max(query.top_k for query in group)
                found = group[0].gallery.search([query.vectors for query in group], deepest, group[0].where)
                answers |= {place: hits[: queries[place].top_k] for place, hits in zip(places, found, strict=True)}
        return [answers[place] for place in range(len(queries))]

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._metrics.search_seconds.observe(time.monotonic() - started)
