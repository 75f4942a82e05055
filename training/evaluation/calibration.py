"""Calibration: probability of one person from similarity, by logistic regression on pairs (Platt scaling).

Both classes have the same weight, so the prior probability of a match is one half. A search in a large gallery has far
more negatives: use a threshold at a stated false-positive rate there.

The pairs are of query and gallery, which are not in the training set. For other cameras, evaluate on their crops and
calibrate again.
"""

import numpy as np
import numpy.typing as npt

from bundle import Calibration
from training.evaluation.blocks import Block
from training.evaluation.verification import Verification

Doubles = npt.NDArray[np.float64]

BINS = 4000  # over cosines of -1 to 1: binning changes the fit only after its third digit


class Histogram:
    """Histograms of the cosines of positive and negative pairs, the input of the regression."""

    def __init__(self) -> None:
        self.positive, self.negative = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)

    def add(self, block: Block) -> None:
        """Count the block's pairs."""
        bin_BG = ((block.similarity_BG + 1) * (BINS / 2)).astype(np.int16).clip(0, BINS - 1)
        self.positive += np.bincount(bin_BG[block.positive_BG], minlength=BINS)
        self.negative += np.bincount(bin_BG[block.negative_BG], minlength=BINS)

    def result(self, verification: Verification, data: str) -> Calibration | None:
        """Fit the regression and add the thresholds of `verification`. None without pairs of both kinds."""
        if not self.positive.any() or not self.negative.any():
            return None
        slope, intercept = fit_logistic(self.positive, self.negative)
        thresholds = {f"{at.rate:g}": at.threshold for at in verification.at}
        return Calibration(data=data, thresholds=thresholds, slope=slope, intercept=intercept)


def fit_logistic(positive: npt.NDArray[np.int64], negative: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Slope and intercept of probability = 1 / (1 + exp(-(slope * cosine + intercept))) from two histograms (BINS,).

    Targets are Platt's (n + 1) / (n + 2) instead of 1, so that the slope stays finite for perfectly separated pairs.
    """
    from scipy.optimize import minimize  # imported here because it takes half a second
    from scipy.special import expit

    positives, negatives = int(positive.sum()), int(negative.sum())
    cosine = (np.arange(BINS) + 0.5) * (2 / BINS) - 1
    design_2N = np.stack([cosine, np.ones(BINS)])
    weight_positive, weight_negative = positive / (2 * positives), negative / (2 * negatives)
    weight = weight_positive + weight_negative
    target = weight_positive * (positives + 1) / (positives + 2) + weight_negative / (negatives + 2)

    def loss(parameters: Doubles) -> float:
        z = parameters @ design_2N
        return float((weight * np.logaddexp(0, z) - target * z).sum())

    def gradient(parameters: Doubles) -> Doubles:
        return np.asarray(design_2N @ (weight * expit(parameters @ design_2N) - target))

    def curvature(parameters: Doubles) -> Doubles:
        probability = expit(parameters @ design_2N)
        return np.asarray((design_2N * (weight * probability * (1 - probability))) @ design_2N.T)

    fit = minimize(loss, np.zeros(2), jac=gradient, hess=curvature, method="trust-exact", options={"gtol": 1e-9})
    slope, intercept = fit.x
    return float(slope), float(intercept)
