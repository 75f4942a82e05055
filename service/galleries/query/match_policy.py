"""From a cosine to a probability and a verdict, by the calibration of the bundle.

The calibration was measured on pairs of single crops. A false-positive rate is that of one pair of different persons:
a search in a gallery of N entries compares N pairs.
"""

import math
from dataclasses import dataclass
from typing import Literal

from bundle import Calibration
from service.core.errors import InvalidRequest, NotCalibrated


@dataclass(frozen=True, slots=True)
class Classification:
    """The probability that a pair shows one person, and the verdict. None if there is no calibration or threshold."""

    probability: float | None
    verdict: Literal["match", "unknown"] | None


@dataclass(frozen=True, slots=True)
class MatchPolicy:
    """How cosines are classified. `threshold` is None if no verdict was requested.

    `false_positive_rate` is None as well if the caller gave the threshold.
    """

    calibration: Calibration | None
    threshold: float | None = None
    false_positive_rate: float | None = None

    def classify(self, cosine: float) -> Classification:
        """Probability = sigmoid(slope * cosine + intercept); a match if the cosine reaches the threshold."""
        probability = None
        if self.calibration is not None:
            logit = self.calibration.slope * cosine + self.calibration.intercept
            probability = 0.5 * (1.0 + math.tanh(0.5 * logit))  # 1 / (1 + exp(-logit)), without overflow
        if self.threshold is None:
            return Classification(probability, None)
        return Classification(probability, "match" if cosine >= self.threshold else "unknown")


def resolve_threshold(
    calibration: Calibration | None, false_positive_rate: float | None, threshold: float | None
) -> MatchPolicy:
    """The policy for a requested false-positive rate, for a threshold, or without a verdict.

    Raises NotCalibrated if the bundle has no calibration, InvalidRequest for a rate that it does not list.
    """
    if false_positive_rate is None:
        return MatchPolicy(calibration, threshold)
    if calibration is None:
        raise NotCalibrated(
            "the bundle has no calibration, so it has no threshold for any false-positive rate: train on a data set "
            "with query and gallery and export again, or give a `threshold` from `pan-train evaluate --full` on your "
            "data"
        )
    for rate, cosine in calibration.thresholds.items():
        if math.isclose(float(rate), false_positive_rate):
            return MatchPolicy(calibration, cosine, false_positive_rate)
    known = ", ".join(sorted(calibration.thresholds, key=float)) or "none"
    raise InvalidRequest(
        f"false_positive_rate: the bundle has no threshold for {false_positive_rate:g}; it has thresholds for: {known}"
    )
