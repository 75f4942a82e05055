"""Verification: is this pair one person? The true-positive rate at stated false-positive rates, over all pairs."""

from dataclasses import dataclass

import numpy as np

from training.evaluation.blocks import Block
from training.evaluation.inputs import Floats, Labels
from training.evaluation.thresholds import AtRate, Largest, allowed, at_rates

FALSE_POSITIVE_RATES = (1e-2, 1e-3, 1e-4)


@dataclass(frozen=True, slots=True)
class Verification:
    """Over the pairs query x gallery that the ranking counts too; `found` is the true-positive rate."""

    positives: int
    negatives: int
    at: tuple[AtRate, ...]


class Pairs:
    """Keeps the similarity of every positive pair, and of as many negative ones as the largest rate lets pass."""

    def __init__(self, query: Labels, gallery: Labels) -> None:
        pairs = len(query.person) * len(gallery.person)
        self.positives: list[Floats] = [np.empty(0, np.float32)]
        self.negatives = Largest(allowed(max(FALSE_POSITIVE_RATES), pairs) + 1)

    def add(self, block: Block) -> None:
        """Take in the block's pairs."""
        self.positives.append(block.similarity_BG[block.positive_BG])
        self.negatives.add(block.similarity_BG[block.negative_BG])

    def result(self) -> Verification:
        """The rates; none of them where no pair is positive."""
        positive, seen = np.concatenate(self.positives), self.negatives.seen
        at = at_rates(FALSE_POSITIVE_RATES, self.negatives.descending(), seen, positive, max(1, len(positive)))
        return Verification(len(positive), seen, at)
