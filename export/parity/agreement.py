"""Comparison of an engine with PyTorch by descriptors and by ranking, and the check of its gates.

Shapes: N images, D numbers of a descriptor, B images of a batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bundle import Evaluation, ImageArray, Parity
from export.errors import ParityError
from export.parity.gates import MIN_QUERIES, Gates
from export.parity.samples import Samples
from training.embed import Embed, Floats
from training.evaluation import evaluate_embeddings

BATCH_SIZES = (1, 2, 7, 32)
UNIT_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Agreement:
    """Measurements of an engine on N images and one ranking."""

    data: str
    images: int
    cosine: Mapping[int, tuple[float, float]]  # batch size -> (min, mean) cosine with PyTorch
    consistency: float  # min cosine of an image with itself in another batch size and position
    crop_similarity: float  # mean cosine between different images in PyTorch, for scale
    queries: int
    mAP_difference: float  # points, engine minus PyTorch
    rank1_difference: float

    @property
    def cosine_min(self) -> float:
        """Minimum over all images and batch sizes."""
        return min(low for low, _ in self.cosine.values())

    @property
    def cosine_mean(self) -> float:
        """Mean over all images and batch sizes."""
        return float(np.mean([mean for _, mean in self.cosine.values()]))

    @property
    def has_enough_queries(self) -> bool:
        """Whether there are enough queries to apply the mAP gate."""
        return self.queries >= MIN_QUERIES

    def parity(self, gates: Gates) -> Parity:
        """The entry for the manifest."""
        return Parity(
            data=self.data,
            images=self.images,
            batch_sizes=tuple(self.cosine),
            cosine_min=self.cosine_min,
            cosine_mean=self.cosine_mean,
            gate_cosine_min=gates.min_cosine,
            consistency_min=self.consistency,
            mAP_difference=self.mAP_difference,
            rank1_difference=self.rank1_difference,
            gate_mAP_loss=gates.max_mAP_loss if self.has_enough_queries else None,
        )


class Reference:
    """Descriptors and ranking of PyTorch on the samples, computed once; engines are compared with them."""

    def __init__(self, embed: Embed, samples: Samples, batch_sizes: Sequence[int] = BATCH_SIZES) -> None:
        self.samples, self.batch_sizes = samples, tuple(batch_sizes)
        self.rows_ND = in_batches(embed, samples.images_NHW3, max(batch_sizes))
        self.embedded = samples.embedded(embed)
        self.evaluation: Evaluation = evaluate_embeddings(*self.embedded)

    def compare(self, engine: Embed) -> Agreement:
        """Run an engine on the samples. Raises ParityError if its outputs are not unit vectors of the right size."""
        rows = {size: in_batches(engine, self.samples.images_NHW3, size) for size in self.batch_sizes}
        for size, row_ND in rows.items():
            _check_descriptors(row_ND, self.rows_ND.shape, size)
        alike = {size: _cosine(row_ND, self.rows_ND) for size, row_ND in rows.items()}
        first = rows[self.batch_sizes[0]]
        ranked = evaluate_embeddings(*self.samples.embedded(engine))
        return Agreement(
            data=self.samples.name,
            images=len(self.rows_ND),
            cosine={size: (float(cosine.min()), float(cosine.mean())) for size, cosine in alike.items()},
            consistency=min(float(_cosine(row_ND, first).min()) for row_ND in rows.values()),
            crop_similarity=float(_cosine(self.rows_ND, np.roll(self.rows_ND, 1, axis=0)).mean()),
            queries=ranked.queries,
            mAP_difference=ranked.mAP - self.evaluation.mAP,
            rank1_difference=ranked.cmc[1] - self.evaluation.cmc[1],
        )

    def mean_cosine(self, engine: Embed) -> float:
        """Mean cosine of an engine with PyTorch at one batch size. Orders candidates at less cost than `compare`."""
        rows_ND = in_batches(engine, self.samples.images_NHW3, max(self.batch_sizes))
        return float(_cosine(rows_ND, self.rows_ND).mean())


def in_batches(embed: Embed, images_NHW3: ImageArray, size: int) -> Floats:
    """Descriptors (N, D), in batches of exactly `size` images; the last one is filled with the first images."""
    count = len(images_NHW3)
    order = np.arange(-(-count // size) * size) % count
    rows = [embed(images_NHW3[order[start : start + size]]) for start in range(0, len(order), size)]
    return np.concatenate(rows)[:count]


def check_gates(agreement: Agreement, gates: Gates) -> None:
    """Raise ParityError with the measured value and the gate if a gate fails."""
    if agreement.crop_similarity >= gates.min_cosine:
        raise ParityError(
            f"different crops have nearly the same vector (mean cosine {format_cosine(agreement.crop_similarity)}), so "
            "any engine would agree; the network has collapsed: train it again, or measure on other crops with --data"
        )
    for size, (low, _) in agreement.cosine.items():
        if low < gates.min_cosine:
            raise ParityError(
                f"the engine differs from PyTorch: min cosine {format_cosine(low)} at batch {size}, the gate is "
                f"{format_cosine(gates.min_cosine)}; measured on {agreement.images} crops"
            )
    if agreement.consistency < gates.min_consistency:
        raise ParityError(
            f"a crop's vector depends on its batch: min cosine {format_cosine(agreement.consistency)} with itself over "
            f"batch sizes {', '.join(map(str, agreement.cosine))}, the gate is {format_cosine(gates.min_consistency)}"
        )
    if agreement.has_enough_queries and -agreement.mAP_difference > gates.max_mAP_loss:
        raise ParityError(
            f"the engine ranks worse than PyTorch: mAP {agreement.mAP_difference:+.2f} points over {agreement.queries} "
            f"queries of {agreement.data}, the gate is a loss of {gates.max_mAP_loss:g}"
        )


def format_cosine(cosine: float) -> str:
    """A cosine with a readable distance to 1: `0.98213`, `1 - 2.4e-07`."""
    return f"{cosine:.5f}" if cosine < 0.999 else f"1 - {1 - cosine:.1e}"


def _check_descriptors(row_ND: Floats, shape: tuple[int, ...], size: int) -> None:
    if row_ND.shape != shape:
        raise ParityError(f"at batch {size} the engine outputs shape {row_ND.shape}, PyTorch {shape}")
    if not np.isfinite(row_ND).all():
        raise ParityError(f"at batch {size} the engine outputs NaN or infinity")
    norm = np.linalg.norm(row_ND.astype(np.float64), axis=1)
    if np.abs(norm - 1).max() > UNIT_TOLERANCE:
        raise ParityError(
            f"at batch {size} the engine outputs vectors of length {norm.min():.5f} to {norm.max():.5f}, not 1"
        )


def _cosine(a_ND: Floats, b_ND: Floats) -> npt.NDArray[np.float64]:
    """Cosine of each row in float64: float32 rounding would be as large as the differences measured here."""
    a, b = a_ND.astype(np.float64), b_ND.astype(np.float64)
    cosine: npt.NDArray[np.float64] = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return cosine
