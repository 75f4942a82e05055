"""Runs searches of the index on threads. Simple searches of one gallery with one filter share a pass over the index."""

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
class IndexQuery:
    """A query of (n, D) unit vectors of one person. The score of an entry is its greatest cosine with them."""

    index: GalleryIndex
    vectors: Vectors
    top_k: int
    where: Filter


class Searcher:
    """Use it on one event loop. It has as many search threads as the machine has cores."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        cores = os.cpu_count() or 1
        self.health = WorkerHealth("search", metrics)
        self._batcher: Batcher[IndexQuery, list[Hit]] = Batcher(
            self._search_batch,
            name="search",
            max_batch=_MAX_BATCH,
            max_delay=0.0,
            workers=cores,
            on_thread_failure=partial(self.health.report, failed=True),
        )
        # Searches with several vectors, groups or re-ranking take longer. They do not delay simple ones.
        self._slow_pool = ThreadPoolExecutor(cores, thread_name_prefix="search-slow", initializer=lower_priority)

    def require_running(self) -> None:
        """Raises NotReady if a search thread has ended."""
        self._batcher.require_running()

    async def entries(self, query: IndexQuery) -> list[Hit]:
        """The best entries."""
        if len(query.vectors) > 1:
            return await self._run_slow(lambda: query.index.search([query.vectors], query.top_k, query.where)[0])
        return await self._batcher.submit(query)

    async def reranked(self, query: IndexQuery, how: Reranking) -> list[Hit]:
        """The best entries after re-ranking."""
        return await self._run_slow(lambda: query.index.search_reranked(query.vectors, query.top_k, query.where, how))

    async def persons(self, query: IndexQuery, how: Grouping) -> list[PersonHit]:
        """The best persons. Entries without a person are left out."""
        where = replace(query.where, has_person=True)
        return await self._run_slow(lambda: query.index.search_persons(query.vectors, query.top_k, where, how))

    async def close(self) -> None:
        """Stop. Waiting searches are cancelled."""
        await self._batcher.close()
        await asyncio.to_thread(self._slow_pool.shutdown, cancel_futures=True)

    async def _run_slow(self, search: Callable[[], T]) -> T:
        def run() -> T:
            try:
                with self._timed():
                    return search()
            except Exception:
                raise
            except BaseException as error:  # through the future it would end the event loop
                raise RuntimeError(f"{type(error).__name__} in a search thread") from error

        with tracing.stage("search"):
            return await asyncio.get_running_loop().run_in_executor(self._slow_pool, run)

    def _search_batch(self, queries: list[IndexQuery]) -> list[list[Hit]]:
        found: dict[int, list[Hit]] = {}
        groups: dict[tuple[int, Filter], list[int]] = {}
        for place, query in enumerate(queries):
            groups.setdefault((id(query.index), query.where), []).append(place)
        with self._timed():
            for places in groups.values():
                group = [queries[place] for place in places]
                max_k = max(query.top_k for query in group)
                hits = group[0].index.search([query.vectors for query in group], max_k, group[0].where)
                found |= {place: own[: queries[place].top_k] for place, own in zip(places, hits, strict=True)}
        return [found[place] for place in range(len(queries))]

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._metrics.search_seconds.observe(time.monotonic() - started)
