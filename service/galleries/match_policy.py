"""Is it the same person? From a cosine to a probability and a verdict, by the bundle's calibration.

The calibration was measured on pairs of single crops. A stated false-positive rate is that of one pair of strangers:
a search in a gallery of N of them meets N such pairs.
"""

import math
from dataclasses import dataclass
from typing import Any

from bundle import Calibration
from service.core.errors import InvalidRequest, NotCalibrated


@dataclass(frozen=True, slots=True)
class MatchPolicy:
    """How cosines are judged: by which threshold, if one was asked for, and by which calibration, if there is one.

    `threshold` and `false_positive_rate` are None where no verdict was asked for; the rate also where the caller gave
    the threshold.
    """

    calibration: Calibration | None
    threshold: float | None = None
    false_positive_rate: float | None = None

    def classify(self, cosine: float) -> dict[str, Any]:
        """The members `probability` and `verdict` of an answer, as far as they can be said."""
        said: dict[str, Any] = {}
        if self.calibration is not None:
            logit = self.calibration.slope * cosine + self.calibration.intercept
            said["probability"] = 0.5 * (1.0 + math.tanh(0.5 * logit))  # 1 / (1 + exp(-logit)), without overflow
        if self.threshold is not None:
            said["verdict"] = "match" if cosine >= self.threshold else "unknown"
        return said

    def view(self) -> dict[str, Any]:
        """The member `decision` of an answer, where a verdict was asked for."""
        if self.threshold is None:
            return {}
        decision: dict[str, Any] = {"threshold": self.threshold}
        if self.calibration is not None and self.false_positive_rate is not None:
            decision |= {"false_positive_rate": self.false_positive_rate, "calibrated_on": self.calibration.data}
        return {"decision": decision}


def resolve_threshold(
    calibration: Calibration | None, false_positive_rate: float | None, threshold: float | None
) -> MatchPolicy:
    """The decision that a caller asked for, by a rate, by a threshold, or not at all.

    Raises NotCalibrated where the bundle states no thresholds, InvalidRequest for a rate that it does not state.
    """
    if false_positive_rate is None:
        return MatchPolicy(calibration, threshold)
    if calibration is None:
        raise NotCalibrated(
            "the bundle has no calibration, so it states no threshold for any false-positive rate: train on a data set "
            "with query and gallery and export again, or take a `threshold` from `pan-train evaluate --full` on yours"
        )
    for rate, cosine in calibration.thresholds.items():
        if math.isclose(float(rate), false_positive_rate):
            return MatchPolicy(calibration, cosine, false_positive_rate)
    stated = ", ".join(sorted(calibration.thresholds, key=float)) or "none"
    raise InvalidRequest(
        f"false_positive_rate: the bundle states no threshold at {false_positive_rate:g}; those it states: {stated}"
    )
