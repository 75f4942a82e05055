"""Open-set identification, measured by leaving out the identity of each query in turn.

- A mated search is a query with a positive, against the rows that count for it. It is detected and identified at a
  threshold when the first row of its ranking is a positive and that row's similarity reaches the threshold.
- A non-mated search is any query against the gallery without a single row of its person: the stranger's search. It is a
  false positive when its best row, somebody else by construction, reaches the threshold.
"""

from dataclasses import dataclass

import numpy as np

from training.evaluation.blocks import Block
from training.evaluation.inputs import Floats
from training.evaluation.thresholds import AtRate, at_rates

FALSE_IDENTIFICATION_RATES = (0.1, 0.01, 0.001)


@dataclass(frozen=True, slots=True)
class OpenSet:
    """`found` is the detection-and-identification rate at a false-positive identification rate."""

    mated: int
    non_mated: int
    at: tuple[AtRate, ...]


class Searches:
    """Keeps two numbers a query: its best similarity with its own identity in the gallery, if right, and without."""

    def __init__(self) -> None:
        self.mated = 0
        self.right: list[Floats] = [np.empty(0, np.float32)]
        self.strangers: list[Floats] = [np.empty(0, np.float32)]

    def add(self, block: Block) -> None:
        """Search for the block's queries, with and without their mates."""
        stranger_BG = np.where(block.negative_BG, block.similarity_BG, -np.inf)
        self.strangers.append(stranger_BG.max(1, initial=-np.inf)[block.negative_BG.any(1)])
        mated = block.positive_BG.any(1)
        self.mated += int(mated.sum())
        if mated.any():
            counted_BG = np.where(block.positive_BG, block.similarity_BG, stranger_BG)[mated]
            first = counted_BG.argmax(1)[:, None]  # of equal ones the gallery's first, as in the ranking
            right = np.take_along_axis(block.positive_BG[mated], first, 1)
            self.right.append(np.take_along_axis(counted_BG, first, 1)[right])

    def result(self) -> OpenSet:
        """The rates; none of them where no query is mated."""
        strangers = np.sort(np.concatenate(self.strangers))[::-1]
        right, attempts = np.concatenate(self.right), max(1, self.mated)
        at = at_rates(FALSE_IDENTIFICATION_RATES, strangers, len(strangers), right, attempts)
        return OpenSet(self.mated, len(strangers), at)
