"""The lowest threshold at a stated false-positive rate, computed exactly from a stream of similarities.

A decision is `similarity >= threshold`. At rate f over N impostor similarities, floor(f * N) of them may pass, so the
threshold lies just above the next largest one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluation.inputs import Floats

MIN_FALSE = 10  # with fewer false positives, the estimate of a rate is off by up to a factor of two


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold at a false-positive rate. `found`: the true-positive or identification rate there, in per cent."""

    rate: float
    threshold: float
    found: float


class LargestValues:
    """The `count` largest numbers of a stream, exactly. Holds at most three times as many and one block."""

    def __init__(self, count: int) -> None:
        self.count, self.seen = count, 0
        self._floor = np.float32(-np.inf)
        self._kept: list[Floats] = []
        self._size = 0

    def add(self, values: Floats) -> None:
        """Process any number of values."""
        self.seen += len(values)
        above = values[values > self._floor]
        self._kept.append(above)
        self._size += len(above)
        if self._size > 3 * self.count:
            self._prune()

    def descending(self) -> Floats:
        """The largest values, largest first."""
        self._prune()
        return np.sort(self._kept[0])[::-1]

    def _prune(self) -> None:
        values = np.concatenate([*self._kept, np.empty(0, np.float32)])
        if len(values) > self.count:
            values = np.partition(values, len(values) - self.count)[len(values) - self.count :]
            self._floor = values.min()
        self._kept, self._size = [values], len(values)


def allowed_false_positives(rate: float, total: int) -> int:
    """The number of false positives among `total` impostors that a rate allows."""
    return int(rate * total + 1e-9)


def operating_points(
    rates: Sequence[float], impostors: Floats, total: int, genuine: Floats, attempts: int
) -> tuple[OperatingPoint, ...]:
    """The threshold at each rate and the share of `attempts` whose genuine similarity reaches it.

    impostors: the largest of `total` impostor similarities, descending; at least one more than
    `allowed_false_positives(max(rates), total)`. A rate for which `total` is too small is left out.
    """
    found = []
    for rate in rates:
        passing = allowed_false_positives(rate, total)
        if passing >= MIN_FALSE:
            threshold = np.nextafter(impostors[passing], np.float32(np.inf))
            share = np.count_nonzero(genuine >= threshold) / attempts
            found.append(OperatingPoint(rate, float(threshold), round(100 * share, 4)))
    return tuple(found)
