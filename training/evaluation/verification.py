"""Verification: the true-positive rate at stated false-positive rates, over all query-gallery pairs that count."""

from dataclasses import dataclass

import numpy as np

from training.evaluation.blocks import Block
from training.evaluation.inputs import Floats, Labels
from training.evaluation.thresholds import LargestValues, OperatingPoint, allowed_false_positives, operating_points

FALSE_POSITIVE_RATES = (1e-2, 1e-3, 1e-4)


@dataclass(frozen=True, slots=True)
class Verification:
    """Rates over the query-gallery pairs that the ranking counts too. `found`: the true-positive rate."""

    positives: int
    negatives: int
    at: tuple[OperatingPoint, ...]


class Pairs:
    """Keeps the similarities of all positive pairs, and of the most similar negatives that the highest rate needs."""

    def __init__(self, query: Labels, gallery: Labels) -> None:
        pairs = len(query.person) * len(gallery.person)
        self.positives: list[Floats] = [np.empty(0, np.float32)]
        self.negatives = LargestValues(allowed_false_positives(max(FALSE_POSITIVE_RATES), pairs) + 1)

    def add(self, block: Block) -> None:
        """Process the block's pairs."""
        self.positives.append(block.similarity_BG[block.positive_BG])
        self.negatives.add(block.similarity_BG[block.negative_BG])

    def result(self) -> Verification:
        """The rates; none if no pair is positive."""
        positive, seen = np.concatenate(self.positives), self.negatives.seen
        at = operating_points(FALSE_POSITIVE_RATES, self.negatives.descending(), seen, positive, max(1, len(positive)))
        return Verification(len(positive), seen, at)
