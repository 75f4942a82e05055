"""Retrieval quality by the official rules: CMC, mAP in both conventions, mINP. Vectorised, memory bounded by blocks.

Rules: gallery rows of person -1 (junk) are removed; for a query the gallery rows of its own person in its own
camera are dropped; a query with no positive left is skipped and leaves every mean. Equal similarities keep the
gallery's order.

Shapes: Q queries, G gallery rows, D numbers of an embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle import Evaluation
from training.errors import DataError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

JUNK = -1
CMC_RANKS = (1, 5, 10, 20)
BLOCK_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Labels:
    """Whose crops the rows are and which camera saw them; (Q,) or (G,) each."""

    person: Ints
    camera: Ints


def evaluate_embeddings(
    query_QD: Floats, query: Labels, gallery_GD: Floats, gallery: Labels, data: str = "embeddings"
) -> Evaluation:
    """Rank the gallery for every query by cosine similarity and score the ranking, figures in per cent.

    Raises DataError where shapes disagree, a value is not finite, or no query has a positive.
    """
    for name, rows, labels in (("query", query_QD, query), ("gallery", gallery_GD, gallery)):
        if rows.ndim != 2 or not len(rows) == len(labels.person) == len(labels.camera):
            raise DataError(f"{name}: {rows.shape} embeddings, {len(labels.person)} ids, {len(labels.camera)} cameras")
        if not np.isfinite(rows).all():
            raise DataError(f"{name}: some embeddings are not finite numbers")
    if query_QD.shape[1] != gallery_GD.shape[1]:
        raise DataError(f"query embeddings have {query_QD.shape[1]} numbers, gallery ones {gallery_GD.shape[1]}")
    query_QD, gallery_GD = _unit(query_QD), _unit(gallery_GD)
    return evaluate_similarity(lambda rows: query_QD[rows] @ gallery_GD.T, query, gallery, data)


def evaluate_similarity(
    similarity: Callable[[slice], Floats], query: Labels, gallery: Labels, data: str = "similarities"
) -> Evaluation:
    """As `evaluate_embeddings`, from any similarity: `similarity(rows)` gives (len(rows), G), larger is closer.

    It is asked for one block of queries at a time, so the Q x G matrix need never exist.
    """
    block = max(1, BLOCK_BYTES // (16 * max(1, len(gallery.person))))
    scores = []
    for start in range(0, len(query.person), block):
        rows = slice(start, start + block)
        similarity_QG = similarity(rows)
        for index, row in enumerate(similarity_QG, start=start):
            ranks = _positive_ranks(row, gallery, int(query.person[index]), int(query.camera[index]))
            if len(ranks):
                scores.append(_score(ranks))
    if not scores:
        raise DataError("no query has a gallery crop of the same person in another camera; nothing can be measured")
    table = np.array(scores)
    first = table[:, 3]
    return Evaluation(
        data=data,
        queries=len(scores),
        gallery=int((gallery.person != JUNK).sum()),
        mAP=_per_cent(table[:, 0].mean()),
        mAP_official=_per_cent(table[:, 1].mean()),
        mINP=_per_cent(table[:, 2].mean()),
        cmc={rank: _per_cent((first <= rank).mean()) for rank in CMC_RANKS},
    )


def _positive_ranks(similarity_G: Floats, gallery: Labels, person: int, camera: int) -> Ints:
    """Ranks (1 = best) of the query's positives among the kept gallery rows, ascending."""
    same = gallery.person == person
    dropped = (same & (gallery.camera == camera)) | (gallery.person == JUNK)
    positive = np.flatnonzero(same & ~dropped)
    if not len(positive):
        return positive
    kept_ascending = np.sort(similarity_G[~dropped])
    value = similarity_G[positive]
    above = len(kept_ascending) - np.searchsorted(kept_ascending, value, "right")
    ties = np.searchsorted(kept_ascending, value, "right") - np.searchsorted(kept_ascending, value, "left")
    for index in np.flatnonzero(ties > 1):  # rare: rows of equal similarity count in the gallery's order
        above[index] += np.count_nonzero(
            (similarity_G == value[index])[: positive[index]] & ~dropped[: positive[index]]
        )
    return np.sort(above + 1)


def _score(ranks: Ints) -> tuple[float, float, float, int]:
    """Ranks of the positives -> AP, AP by the Matlab trapezoid, INP, rank of the first."""
    found = np.arange(1, len(ranks) + 1)
    precision = found / ranks
    # just above each hit: the precision before it, 1 at rank 0
    before = np.where(ranks > 1, (found - 1) / np.maximum(ranks - 1, 1), 1.0)
    return (
        float(precision.mean()),
        float(((precision + before) / 2).mean()),
        len(ranks) / float(ranks[-1]),
        int(ranks[0]),
    )


def _unit(rows: Floats) -> Floats:
    norm = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.asarray(rows / norm, np.float32)


def _per_cent(value: Any) -> float:
    return round(100 * float(value), 4)
