"""Retrieval quality by the official rules: CMC, mAP in both conventions, mINP.

A query without a positive is skipped; the means are over the other queries.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bundle import Evaluation
from training.errors import DataError
from training.evaluation.blocks import Block, positive_ranks
from training.evaluation.inputs import JUNK, Labels

CMC_RANKS = (1, 5, 10, 20)


@dataclass(frozen=True, slots=True)
class QueryScore:
    """One query's ranking."""

    precision: float  # AP: the mean precision at the positives
    trapezoid: float  # AP by the trapezoid rule, as in the official Matlab code
    inverse: float  # inverse negative penalty: number of positives / rank of the last one
    first: int  # rank of the first positive


class Ranking:
    """Accumulates the score of every query."""

    def __init__(self, gallery: Labels) -> None:
        self.gallery = int((gallery.person != JUNK).sum())
        self.scores: list[QueryScore] = []
        self.queries: list[int] = []  # the query row of each score

    def add(self, block: Block) -> None:
        """QueryScore the block's queries."""
        for index in np.flatnonzero(block.positive_BG.any(1)):
            self.queries.append(block.rows.start + int(index))
            self.scores.append(
                score(positive_ranks(block.similarity_BG[index], block.positive_BG[index], block.negative_BG[index]))
            )

    def result(self, data: str) -> Evaluation:
        """The means, in per cent. Raises DataError if no query has a positive."""
        scores = self.scores
        if not scores:
            raise DataError("no query has a gallery crop of the same person in another camera; nothing can be measured")
        return Evaluation(
            data=data,
            queries=len(scores),
            gallery=self.gallery,
            mAP=mean_percent(score.precision for score in scores),
            mAP_official=mean_percent(score.trapezoid for score in scores),
            mINP=mean_percent(score.inverse for score in scores),
            cmc={rank: mean_percent(score.first <= rank for score in scores) for rank in CMC_RANKS},
        )


def score(ranks: list[int]) -> QueryScore:
    """QueryScore a ranking by the ascending ranks of its positives."""
    rank = np.array(ranks)
    found = np.arange(1, len(rank) + 1)
    precision = found / rank
    # just above each hit: the precision before it, 1 at rank 0
    before = np.where(rank > 1, (found - 1) / np.maximum(rank - 1, 1), 1.0)
    return QueryScore(
        precision=float(precision.mean()),
        trapezoid=float(((precision + before) / 2).mean()),
        inverse=len(rank) / ranks[-1],
        first=ranks[0],
    )


def mean_percent(values: Iterable[Any]) -> float:
    """The mean, in per cent."""
    return round(100 * float(np.mean(list(values))), 4)
