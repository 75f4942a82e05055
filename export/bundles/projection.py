"""Smaller descriptors: a PCA projection fitted to training embeddings, and the accuracy of each size.

Shapes: N embeddings, D dimensions of a descriptor, K of a smaller one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from bundle import InputSpec
from export.errors import ExportError
from export.parity.samples import Samples, training_crops
from training.callbacks import StepCallback
from training.embed import Floats, embed_crops, torch_embedder
from training.evaluation import Embedded, evaluate_embeddings
from training.model import PAN

SIZES = (1536, 768, 512, 256, 128)


@dataclass(frozen=True, slots=True)
class Reduction:
    """The requested descriptor size."""

    dim: int
    whiten: bool = False
    crops: int = 4096  # training crops to fit to


@dataclass(frozen=True, slots=True)
class Projection:
    """x -> W (x - mean), rows of W in order of falling variance; whitened: each divided by its standard deviation."""

    mean_D: npt.NDArray[np.float64]
    weight_KD: npt.NDArray[np.float64]

    def __call__(self, rows_ND: Floats) -> Floats:
        """(N, D) -> (N, K), not yet of unit length."""
        return np.asarray((rows_ND - self.mean_D) @ self.weight_KD.T, np.float32)

    def first(self, dim: int) -> "Projection":
        """Only the first `dim` components."""
        return Projection(self.mean_D, self.weight_KD[:dim])

    def install(self, network: PAN) -> None:
        """Make the network output K-dimensional descriptors."""
        weight_KD = torch.from_numpy(self.weight_KD)
        network.project(weight_KD.float(), -(weight_KD @ torch.from_numpy(self.mean_D)).float())


@dataclass(frozen=True, slots=True)
class SizeAccuracy:
    """Accuracy of a descriptor size in per cent, plain and whitened."""

    dim: int
    mAP: float
    rank1: float
    mAP_whitened: float
    rank1_whitened: float


def reduce_network(
    network: PAN, spec: InputSpec, reduction: Reduction, data: Path | None, samples: Samples, step: StepCallback
) -> list[SizeAccuracy]:
    """Fit the projection to training crops of `data`, install it, and measure each descriptor size on `samples`.

    Raises ExportError without `data` or if its crops span fewer dimensions; DataError.
    """
    if data is None:
        raise ExportError("--dim is fitted to training crops; pass the data set of the training with --data")
    embed = torch_embedder(network, spec)
    step("PyTorch on training crops, for the projection")
    train_ND = embed_crops(embed, training_crops(data, reduction.crops), spec)
    plain, whitened = fit_projection(train_ND, whiten=False), fit_projection(train_ND, whiten=True)
    check_size(plain, reduction.dim)
    step("ranking with descriptors of several sizes")
    sizes = sorted({*SIZES, reduction.dim}, reverse=True)
    accuracies = measure_sizes(samples.embedded(embed), plain, whitened, sizes)
    (whitened if reduction.whiten else plain).first(reduction.dim).install(network)
    return accuracies


def fit_projection(train_ND: Floats, whiten: bool) -> Projection:
    """All principal components of N training embeddings.

    Raises ExportError for fewer than two embeddings.
    """
    if len(train_ND) < 2:
        raise ExportError(f"a projection cannot be fitted to {len(train_ND)} training crops; pass more with --data")
    mean_D = train_ND.mean(0, dtype=np.float64)
    _, deviation_K, weight_KD = np.linalg.svd(train_ND - mean_D, full_matrices=False)
    kept = deviation_K > deviation_K[0] * 1e-6
    weight_KD, deviation_K = weight_KD[kept], deviation_K[kept] / np.sqrt(len(train_ND) - 1)
    return Projection(mean_D, weight_KD / deviation_K[:, None] if whiten else weight_KD)


def check_size(projection: Projection, dim: int) -> None:
    """Raise ExportError if the training embeddings span fewer dimensions."""
    held = len(projection.weight_KD)
    if dim > held:
        raise ExportError(
            f"--dim {dim} is more than the {held} dimensions that the training embeddings span; choose fewer, "
            "or pass a data set with more training crops"
        )


def measure_sizes(
    embedded: Embedded, plain: Projection, whitened: Projection, sizes: Sequence[int]
) -> list[SizeAccuracy]:
    """mAP and rank-1 of the projected embeddings, for every size up to that of the projections."""
    accuracies = []
    for dim in sizes:
        if dim <= len(plain.weight_KD):
            figures = [
                evaluate_embeddings(
                    project(embedded.query_QD), embedded.query, project(embedded.gallery_GD), embedded.gallery
                )
                for project in (plain.first(dim), whitened.first(dim))
            ]
            accuracies.append(SizeAccuracy(dim, figures[0].mAP, figures[0].cmc[1], figures[1].mAP, figures[1].cmc[1]))
    return accuracies
