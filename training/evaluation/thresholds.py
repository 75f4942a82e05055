"""The lowest threshold that keeps a stated rate of false positives, exactly and from a stream.

A decision is `similarity >= threshold`. At rate f over N impostor similarities, floor(f * N) of them may pass: the
threshold lies just above the next one below.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.evaluation.inputs import Floats

MIN_FALSE = 10  # with fewer mistakes behind it, a rate is known to no better than a factor of two


@dataclass(frozen=True, slots=True)
class AtRate:
    """What a threshold at a stated rate of false positives finds, in per cent."""

    rate: float
    threshold: float
    found: float


class Largest:
    """The `count` largest numbers of a stream, exactly, in memory for three times as many and a block."""

    def __init__(self, count: int) -> None:
        self.count, self.seen = count, 0
        self._floor = np.float32(-np.inf)
        self._kept: list[Floats] = []
        self._size = 0

    def add(self, values: Floats) -> None:
        """Take in numbers of any count."""
        self.seen += len(values)
        above = values[values > self._floor]
        self._kept.append(above)
        self._size += len(above)
        if self._size > 3 * self.count:
            self._prune()

    def descending(self) -> Floats:
        """What is kept, largest first."""
        self._prune()
        return np.sort(self._kept[0])[::-1]

    def _prune(self) -> None:
        values = np.concatenate([*self._kept, np.empty(0, np.float32)])
        if len(values) > self.count:
            values = np.partition(values, len(values) - self.count)[len(values) - self.count :]
            self._floor = values.min()
        self._kept, self._size = [values], len(values)


def allowed(rate: float, total: int) -> int:
    """How many of `total` may be accepted wrongly at a rate."""
    return int(rate * total + 1e-9)


def at_rates(
    rates: Sequence[float], impostors: Floats, total: int, genuine: Floats, attempts: int
) -> tuple[AtRate, ...]:
    """The threshold at each rate and the share of `attempts` whose genuine similarity reaches it.

    impostors: the largest of `total` impostor similarities, descending, at least `allowed(max(rates), total) + 1`.
    A rate that `total` is too few to measure is left out.
    """
    found = []
    for rate in rates:
        passing = allowed(rate, total)
        if passing >= MIN_FALSE:
            threshold = np.nextafter(impostors[passing], np.float32(np.inf))
            share = np.count_nonzero(genuine >= threshold) / attempts
            found.append(AtRate(rate, float(threshold), round(100 * share, 4)))
    return tuple(found)
