"""Open-set identification, measured by leaving out the identity of each query in turn.

- A mated search is a query with a positive, against the rows that count for it. It is detected and identified at a
  threshold if the first row of its ranking is a positive and the similarity of that row reaches the threshold.
- A non-mated search is any query against the gallery without the rows of its person. It is a false positive if its best
  row reaches the threshold.
"""

from dataclasses import dataclass

import numpy as np

from training.evaluation.blocks import Block
from training.evaluation.inputs import Floats
from training.evaluation.thresholds import OperatingPoint, operating_points

FALSE_IDENTIFICATION_RATES = (0.1, 0.01, 0.001)


@dataclass(frozen=True, slots=True)
class OpenSet:
    """Open-set identification. `found`: detection-and-identification rate (DIR) at a false-positive rate (FPIR)."""

    mated: int
    non_mated: int
    at: tuple[OperatingPoint, ...]


class Searches:
    """Keeps two similarities per query: that of a correct first row with its mates, and the best without its mates."""

    def __init__(self) -> None:
        self.mated = 0
        self.right: list[Floats] = [np.empty(0, np.float32)]
        self.non_mated: list[Floats] = [np.empty(0, np.float32)]

    def add(self, block: Block) -> None:
        """Search with the block's queries, with and without their mates in the gallery."""
        negative_BG = np.where(block.negative_BG, block.similarity_BG, -np.inf)
        self.non_mated.append(negative_BG.max(1, initial=-np.inf)[block.negative_BG.any(1)])
        mated = block.positive_BG.any(1)
        self.mated += int(mated.sum())
        if mated.any():
            counted_BG = np.where(block.positive_BG, block.similarity_BG, negative_BG)[mated]
            first = counted_BG.argmax(1)[:, None]  # ties keep the gallery's order, as in the ranking
            right = np.take_along_axis(block.positive_BG[mated], first, 1)
            self.right.append(np.take_along_axis(counted_BG, first, 1)[right])

    def result(self) -> OpenSet:
        """The rates; none if no query is mated."""
        non_mated = np.sort(np.concatenate(self.non_mated))[::-1]
        right, attempts = np.concatenate(self.right), max(1, self.mated)
        at = operating_points(FALSE_IDENTIFICATION_RATES, non_mated, len(non_mated), right, attempts)
        return OpenSet(self.mated, len(non_mated), at)
