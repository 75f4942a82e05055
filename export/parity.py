"""How far an engine departs from PyTorch, over batch sizes; and the gate it must pass. Pure comparisons.

Shapes: N images, D numbers of a descriptor, B images of a batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bundle import ImageArray, Parity
from export.errors import ParityError
from training.embed import Embed, Floats

BATCH_SIZES = (1, 2, 7, 32)
MIN_COSINE = 0.99999
MIN_CONSISTENCY = 0.999999
UNIT_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was seen of an engine on N images."""

    images: int
    cosine: Mapping[int, tuple[float, float]]  # batch size -> (min, mean) cosine with PyTorch
    consistency: float  # min cosine of an image with itself in another batch size and position
    spread: float  # mean cosine between different images in PyTorch: what "far apart" looks like

    @property
    def cosine_min(self) -> float:
        """The worst over all images and batch sizes."""
        return min(low for low, _ in self.cosine.values())

    @property
    def cosine_mean(self) -> float:
        """The mean over all images and batch sizes."""
        return float(np.mean([mean for _, mean in self.cosine.values()]))

    def parity(self, data: str, gate: float) -> Parity:
        """The manifest's record of it."""
        return Parity(
            data=data,
            images=self.images,
            batch_sizes=tuple(self.cosine),
            cosine_min=self.cosine_min,
            cosine_mean=self.cosine_mean,
            gate_cosine_min=gate,
        )


def in_batches(embed: Embed, images_NHW3: ImageArray, size: int) -> Floats:
    """Descriptors (N, D), every batch of exactly `size` images: the last one is filled up from the beginning."""
    count = len(images_NHW3)
    order = np.arange(-(-count // size) * size) % count
    rows = [embed(images_NHW3[order[start : start + size]]) for start in range(0, len(order), size)]
    return np.concatenate(rows)[:count]


def compare(
    reference: Embed, engine: Embed, images_NHW3: ImageArray, batch_sizes: Sequence[int] = BATCH_SIZES
) -> Agreement:
    """Run both on the images and compare. Raises ParityError where an engine's rows are not descriptors at all."""
    expected_ND = in_batches(reference, images_NHW3, max(batch_sizes))
    rows = {size: in_batches(engine, images_NHW3, size) for size in batch_sizes}
    for size, row_ND in rows.items():
        _require_descriptors(row_ND, expected_ND.shape, size)
    alike = {size: _cosine(row_ND, expected_ND) for size, row_ND in rows.items()}
    first = rows[batch_sizes[0]]
    return Agreement(
        images=len(images_NHW3),
        cosine={size: (float(cosine.min()), float(cosine.mean())) for size, cosine in alike.items()},
        consistency=min(float(_cosine(row_ND, first).min()) for row_ND in rows.values()),
        spread=float(_cosine(expected_ND, np.roll(expected_ND, 1, axis=0)).mean()),
    )


def require(agreement: Agreement, min_cosine: float = MIN_COSINE, min_consistency: float = MIN_CONSISTENCY) -> None:
    """The gate. Raises ParityError that says what was measured, what was asked and by how much it failed."""
    if agreement.spread >= min_cosine:
        raise ParityError(
            f"different crops give nearly one vector (mean cosine {in_words(agreement.spread)}), so agreement proves "
            "nothing; the network has collapsed: train it again, or measure on other crops with --data"
        )
    for size, (low, _) in agreement.cosine.items():
        if low < min_cosine:
            raise ParityError(
                f"the engine departs from PyTorch: min cosine {in_words(low)} at batch {size}, the gate is "
                f"{in_words(min_cosine)}; measured on {agreement.images} crops, nothing was written"
            )
    if agreement.consistency < min_consistency:
        raise ParityError(
            f"a crop's vector depends on its batch: min cosine {in_words(agreement.consistency)} with itself over "
            f"batch sizes {', '.join(map(str, agreement.cosine))}, the gate is {in_words(min_consistency)}; "
            "nothing was written"
        )


def in_words(cosine: float) -> str:
    """A cosine so that its distance to 1 can be read: `0.98213`, `1 - 2.4e-07`."""
    return f"{cosine:.5f}" if cosine < 0.999 else f"1 - {1 - cosine:.1e}"


def _require_descriptors(row_ND: Floats, shape: tuple[int, ...], size: int) -> None:
    if row_ND.shape != shape:
        raise ParityError(f"at batch {size} the engine gives {row_ND.shape} where PyTorch gives {shape}")
    if not np.isfinite(row_ND).all():
        raise ParityError(f"at batch {size} the engine gives numbers that are not finite; nothing was written")
    norm = np.linalg.norm(row_ND.astype(np.float64), axis=1)
    if np.abs(norm - 1).max() > UNIT_TOLERANCE:
        raise ParityError(
            f"at batch {size} the engine gives vectors of length {norm.min():.5f} to {norm.max():.5f}, not 1"
        )


def _cosine(a_ND: Floats, b_ND: Floats) -> npt.NDArray[np.float64]:
    """Row by row, in float64: in float32 the rounding of the sum is as large as what is measured."""
    a, b = a_ND.astype(np.float64), b_ND.astype(np.float64)
    cosine: npt.NDArray[np.float64] = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return cosine
