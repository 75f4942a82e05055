"""The protocol of all measurements, applied to blocks of queries: which pairs count, and as positive or negative.

Gallery rows of person -1 (junk) are excluded, and queries of person -1 or 0 (distractor). For each query, gallery rows
of the same person and the same camera are excluded. Of the remaining pairs, those of one person are positive and all
others negative.

Shapes: Q queries, B of them in a block, G gallery rows, D numbers of an embedding.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from training.evaluation.inputs import DISTRACTOR, JUNK, Bools, Floats, Labels

BLOCK_BYTES = 256 * 2**20

Similarity = Callable[[slice], Floats]
"""Similarities (len(rows), G) of a slice of the queries with the whole gallery; larger is closer."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some queries against the whole gallery."""

    rows: slice
    similarity_BG: Floats
    positive_BG: Bools
    negative_BG: Bools


class Measurement(Protocol):
    """Accumulates blocks; each is added once."""

    def add(self, block: Block) -> None:
        """Process a block."""


def cosine(query_QD: Floats, gallery_GD: Floats) -> Similarity:
    """Cosine similarity of rows of unit length."""
    return lambda rows: query_QD[rows] @ gallery_GD.T


def measure(similarity: Similarity, query: Labels, gallery: Labels, *measurements: Measurement) -> None:
    """Pass every block to every measurement."""
    for block in blocks(similarity, query, gallery):
        for measurement in measurements:
            measurement.add(block)


def blocks(similarity: Similarity, query: Labels, gallery: Labels) -> Iterator[Block]:
    """Blocks of consecutive queries, sized so that a block's arrays stay within `BLOCK_BYTES`."""
    for rows in spans(len(query.person), 16 * len(gallery.person)):
        person_B1, camera_B1 = query.person[rows, None], query.camera[rows, None]
        same_BG = person_B1 == gallery.person
        counted_BG = (gallery.person != JUNK) & (person_B1 > DISTRACTOR)
        yield Block(
            rows,
            similarity(rows),
            positive_BG=same_BG & counted_BG & (gallery.camera != camera_B1),
            negative_BG=~same_BG & counted_BG,
        )


def spans(count: int, bytes_a_row: int) -> Iterator[slice]:
    """Slices that cover `count` rows, each within `BLOCK_BYTES`."""
    step = max(1, BLOCK_BYTES // max(1, bytes_a_row))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def positive_ranks(similarity_G: Floats, positive_G: Bools, negative_G: Bools) -> list[int]:
    """Ranks (1 = best) of one query's positives among the rows that count, ascending.

    Equal similarities keep the gallery's order. Counting what is above each positive is several times faster than
    sorting the gallery: a person has few positives.
    """
    lowest = similarity_G[positive_G].min(initial=np.inf)
    reached = np.flatnonzero((similarity_G >= lowest) & (positive_G | negative_G))
    value = similarity_G[reached]
    return sorted(
        1 + int(np.count_nonzero(value > value[hit])) + int(np.count_nonzero(value[:hit] == value[hit]))
        for hit in np.flatnonzero(positive_G[reached])
    )
