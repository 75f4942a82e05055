"""Searches on threads, those that ask alike in one pass over the index."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.batcher import Batcher
from service.columns import Filter
from service.engine import Vectors
from service.gallery import Gallery, Hit, PersonHit
from service.metrics import Metrics

_MAX_BATCH = 32


@dataclass(frozen=True, slots=True, eq=False)
class _Query:
    gallery: Gallery
    vector: Vectors
    top_k: int
    where: Filter
    examples: int | None  # a number asks for persons


class Searcher:
    """Lives on one event loop; every core may search."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._batcher: Batcher[_Query, list[Hit] | list[PersonHit]] = Batcher(
            self._run, name="search", max_batch=_MAX_BATCH, max_delay=0.0, workers=os.cpu_count() or 1
        )

    async def hits(self, gallery: Gallery, vector: Vectors, top_k: int, where: Filter) -> list[Hit]:
        """The best entries for a (D,) unit vector."""
        return await self._batcher.submit(_Query(gallery, vector, top_k, where, None))  # type: ignore[return-value]

    async def persons(
        self, gallery: Gallery, vector: Vectors, top_k: int, where: Filter, examples: int
    ) -> list[PersonHit]:
        """The best persons for a (D,) unit vector."""
        named = replace(where, named=True)
        return await self._batcher.submit(_Query(gallery, vector, top_k, named, examples))  # type: ignore[return-value]

    async def close(self) -> None:
        """Stop; waiting searches are cancelled."""
        await self._batcher.close()

    def _run(self, queries: list[_Query]) -> Sequence[list[Hit] | list[PersonHit]]:
        started = time.monotonic()
        answers: dict[int, list[Hit] | list[PersonHit]] = {}
        alike: dict[tuple[int, Filter], list[int]] = {}
        for place, query in enumerate(queries):
            if query.examples is None:
                alike.setdefault((id(query.gallery), query.where), []).append(place)
            else:
                answers[place] = query.gallery.search_persons(query.vector, query.top_k, query.where, query.examples)
        for places in alike.values():
            group = [queries[place] for place in places]
            found = group[0].gallery.search(
                np.stack([query.vector for query in group]), max(query.top_k for query in group), group[0].where
            )
            answers |= {place: hits[: queries[place].top_k] for place, hits in zip(places, found, strict=True)}
        self._metrics.search_seconds.observe(time.monotonic() - started)
        return [answers[place] for place in range(len(queries))]
