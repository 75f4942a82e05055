"""Use cases without a gallery: embed, compare and explain crops."""

from collections.abc import Iterator

import numpy as np

from bundle import Calibration, ImageError
from service.galleries.audit import Audit
from service.galleries.commands import CompareImages, EmbedImages, ExplainImages
from service.galleries.outcomes import require_all, require_any
from service.galleries.query.match_policy import resolve_threshold
from service.galleries.query.vectors import mean_direction
from service.galleries.results import Comparison, Embeddings, Explanations, ItemFailure, Maps
from service.inference.embedder import Embedder
from service.inference.explainer import Explainer


class Inference:
    """Runs the loaded model on crops."""

    def __init__(
        self,
        embedder: Embedder,
        explainer: Explainer,
        audit: Audit,
        fingerprint: str,
        calibration: Calibration | None,
    ) -> None:
        """`fingerprint` and `calibration` are those of the loaded model."""
        self._embedder = embedder
        self._explainer = explainer
        self._audit = audit
        self._fingerprint = fingerprint
        self._calibration = calibration

    async def embed(self, command: EmbedImages) -> Embeddings:
        """The vector of each crop. Raises UnusableImages if no crop can be used, or as `Embedder.embed`."""
        images = command.images
        outcomes = await self._embedder.embed(images.images, images.boxes)
        (require_all if command.all_or_nothing else require_any)(outcomes, images.names)
        results = tuple(ItemFailure.of(one) if isinstance(one, ImageError) else one for one in outcomes)
        return Embeddings(self._fingerprint, self._embedder.dim, results)

    async def compare(self, command: CompareImages) -> Comparison:
        """The similarity of two sets, each fused by its mean. The call is in the audit log; nothing else is stored.

        Raises UnusableImages if one image cannot be used, NotCalibrated, InvalidRequest, a storage error, or as
        `Embedder.embed`.
        """
        policy = resolve_threshold(self._calibration, command.false_positive_rate, command.threshold)
        images, names = command.a.images + command.b.images, command.a.names + command.b.names
        async with self._audit.record_concurrently(command.caller, "compare", "", len(images)):
            vectors = require_all(await self._embedder.embed(images), names)
        a, b = vectors[: len(command.a)], vectors[len(command.a) :]
        cosines = np.stack(a) @ np.stack(b).T
        best_a, best_b = np.unravel_index(int(cosines.argmax()), cosines.shape)
        similarity = float(mean_direction(a) @ mean_direction(b))
        return Comparison(similarity, int(best_a), int(best_b), float(cosines[best_a, best_b]), policy)

    async def explain(self, command: ExplainImages) -> Explanations:
        """The part masks and compatibility maps of each crop.

        Raises NoExplainGraph, BodyTooLarge, UnusableImages if no crop can be used, or as `Embedder.embed`.
        """
        images = command.images
        self._explainer.require(len(images))
        crops = await self._embedder.decode(images.images, images.boxes)
        require_any(crops, images.names)
        maps = await self._explainer.maps(np.stack([crop for crop in crops if not isinstance(crop, ImageError)]))
        each = _split(maps)
        outcomes = tuple(ItemFailure.of(crop) if isinstance(crop, ImageError) else next(each) for crop in crops)
        return Explanations(self._fingerprint, outcomes)


def _split(maps: Maps) -> Iterator[Maps]:
    """The maps of each crop of a batch, without the batch axis."""
    for place in range(len(maps["masks"])):
        yield {name: values[place] for name, values in maps.items()}
