"""The measurements of the report: the CMC curve, histograms of pair similarities, ranked lists of some queries.

The protocol is that of the evaluation: junk, and crops of the query's person in the query's camera, are excluded.
Shapes: Q queries, G gallery rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bundle import Evaluation
from training.data import Crop, ReidData
from training.evaluation import Embedded, Ints, Labels, cosine
from training.evaluation.blocks import blocks, measure
from training.evaluation.calibration import Histogram
from training.evaluation.ranking import QueryScore, Ranking

CMC_LENGTH = 50
HITS = 10
EACH = 3  # queries from the worst, the middle and the best


@dataclass(frozen=True, slots=True)
class Hit:
    """One crop of a ranked list."""

    crop: Crop
    right: bool  # of the query's person
    similarity: float


@dataclass(frozen=True, slots=True)
class RankedList:
    """A query and its nearest crops."""

    query: Crop
    precision: float  # AP, per cent
    positives: int  # gallery crops of the query's person that count
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class RetrievalResults:
    """The measurements on query and gallery."""

    evaluation: Evaluation
    cmc: list[float]  # per cent of queries with a positive at rank 1, 2, ... or better
    histogram: Histogram
    lists: dict[str, list[RankedList]]  # worst, median, best


def measure_retrieval(embedded: Embedded, data: ReidData) -> RetrievalResults:
    """Measure an embedded data set. Raises DataError if no query has a positive."""
    rows = embedded.checked()
    ranking, histogram = Ranking(rows.gallery), Histogram()
    measure(cosine(rows.query_QD, rows.gallery_GD), rows.query, rows.gallery, ranking, histogram)
    evaluation = ranking.result(rows.data)
    first = np.array([score.first for score in ranking.scores])
    length = min(CMC_LENGTH, evaluation.gallery)
    cmc = [100 * float((first <= rank).mean()) for rank in range(1, length + 1)]
    chosen = {
        name: _ranked_lists(
            rows, data, [ranking.queries[place] for place in places], [ranking.scores[i] for i in places]
        )
        for name, places in choose_queries([score.precision for score in ranking.scores]).items()
    }
    return RetrievalResults(evaluation, cmc, histogram, chosen)


def choose_queries(precisions: Sequence[float]) -> dict[str, list[int]]:
    """Indices of the worst, median and best queries by AP (ties by index), each at most once."""
    order = [int(place) for place in np.argsort(precisions, kind="stable")]
    worst, rest = order[:EACH], order[EACH:]
    best, rest = rest[-EACH:], rest[:-EACH]
    start = max(0, (len(rest) - EACH) // 2)
    return {"worst": worst, "median": rest[start : start + EACH], "best": best}


def _ranked_lists(
    rows: Embedded, data: ReidData, queries: Sequence[int], scores: Sequence[QueryScore]
) -> list[RankedList]:
    at: Ints = np.array(queries, np.int64)
    asked = Labels(rows.query.person[at], rows.query.camera[at])
    lists = []
    for block in blocks(cosine(rows.query_QD[at], rows.gallery_GD), asked, rows.gallery):
        for index in range(len(block.similarity_BG)):
            similarity_G, positive_G = block.similarity_BG[index], block.positive_BG[index]
            counted = np.flatnonzero(positive_G | block.negative_BG[index])
            nearest = counted[np.argsort(-similarity_G[counted], kind="stable")[:HITS]]
            hits = tuple(Hit(data.gallery[i], bool(positive_G[i]), float(similarity_G[i])) for i in nearest)
            place = block.rows.start + index
            query = data.query[queries[place]]
            lists.append(RankedList(query, 100 * scores[place].precision, int(positive_G.sum()), hits))
    return lists
