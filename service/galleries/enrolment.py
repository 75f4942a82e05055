"""Enrolment: crops that were read are embedded, then committed. A stream does so batch by batch, a plain call once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bundle import ImageError, PanError
from service.core.errors import item_error
from service.core.models import NewEntry
from service.core.types import Image, Vectors
from service.galleries.catalog import LoadedGallery
from service.galleries.enrolment_results import Batch
from service.galleries.entries import Entries, IdempotencyKey
from service.inference.crop import Box
from service.inference.embedder import Embedder


@dataclass(frozen=True, slots=True)
class Crop:
    """What is known of a crop, and where its vector comes from: a picture, a box of a frame, or a (D,) unit vector."""

    entry: NewEntry
    source: Image | Box | Vectors


@dataclass(frozen=True, slots=True)
class Embedded:
    """What is known of a crop, its (D,) unit vector, and its picture where the gallery keeps it."""

    entry: NewEntry
    vector: Vectors
    picture: bytes | None


Parsed = Crop | PanError
Outcome = Embedded | PanError


class Enrolment:
    """The two halves of an enrolment, for requests and streams alike."""

    def __init__(self, embedder: Embedder, entries: Entries) -> None:
        self._embedder = embedder
        self._entries = entries

    async def embed(self, held: LoadedGallery, parsed: Sequence[Parsed], frame: Image | None = None) -> list[Outcome]:
        """The vectors of crops; those that failed already stay as they are. With a frame the sources are boxes in it.

        Raises as `Embedder.embed`.
        """
        sources = [one.source for one in parsed if isinstance(one, Crop) and not isinstance(one.source, np.ndarray)]
        made = iter(await self._embed_sources(held, sources, frame) if sources else [])
        outcomes: list[Outcome] = []
        for one in parsed:
            if isinstance(one, PanError):
                outcomes.append(one)
            elif isinstance(one.source, np.ndarray):
                outcomes.append(Embedded(one.entry, one.source, None))
            else:
                crop = next(made)
                outcomes.append(crop if isinstance(crop, ImageError) else Embedded(one.entry, *crop))
        return outcomes

    async def _embed_sources(
        self, held: LoadedGallery, sources: Sequence[Any], frame: Image | None
    ) -> Sequence[tuple[Vectors, bytes | None] | ImageError]:
        images, boxes = (sources, None) if frame is None else ([frame], sources)
        if held.row.keep_crops:
            return await self._embedder.embed_and_encode(images, boxes)
        vectors = await self._embedder.embed(images, boxes)
        return [one if isinstance(one, ImageError) else (one, None) for one in vectors]

    async def commit(
        self,
        who: str,
        held: LoadedGallery,
        outcomes: Sequence[Outcome],
        key: IdempotencyKey | None = None,
        digests: bytes = b"",
    ) -> Batch:
        """Enrol the crops that have a vector, and keep the results under the key. A key that was used before gives the
        results of then. Raises as `Entries.enrol`.
        """
        good = [one for one in outcomes if isinstance(one, Embedded)]
        failures = {place: item_error(one) for place, one in enumerate(outcomes) if isinstance(one, PanError)}
        batch = Batch(len(outcomes), failures, digests)
        if key is None and not good:
            return batch
        vectors = np.array([one.vector for one in good], np.float32).reshape(-1, held.row.dim)
        return await self._entries.enrol(
            who, held, [one.entry for one in good], vectors, batch, key, [one.picture for one in good]
        )
