"""k-reciprocal re-ranking against a direct implementation of the formula and against that of training."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.models import NewEntry
from service.index.gallery_index import GalleryIndex
from service.index.metadata import Filter
from service.index.reranking import Reranking, k_reciprocal
from training.evaluation.reranking import rerank


def clusters(seed: int, persons: int, shots: int, dim: int = 6) -> np.ndarray:
    """(persons * shots, dim) unit vectors in clusters. The first is the query."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.normal(size=(persons, dim)), shots, axis=0)
    vectors = centres + 0.6 * rng.normal(size=centres.shape)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def reference_distances(rows: np.ndarray, k1: int, k2: int, share: float) -> list[float]:
    """The definition with sets in float64: the distance of each row from the first."""
    count = len(rows)
    squared = np.maximum(2 - 2 * rows.astype(np.float64) @ rows.T.astype(np.float64), 0)
    d = squared / squared.max(1, keepdims=True)
    order = [sorted(range(count), key=lambda j, i=i: (j != i, d[i, j])) for i in range(count)]

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in order[i][: k + 1] if i in order[j][: k + 1]}

    weights = np.zeros((count, count))
    for i in range(count):
        core = reciprocal(i, k1)
        expanded = set(core)
        for j in core:
            near = reciprocal(j, round(k1 / 2))
            if len(near & core) > 2 / 3 * len(near):
                expanded |= near
        for j in expanded:
            weights[i, j] = np.exp(-d[i, j])
        weights[i] /= weights[i].sum()
    averaged = np.array([np.mean([weights[j] for j in order[i][:k2]], axis=0) for i in range(count)])
    jaccard = [1 - np.minimum(averaged[0], v).sum() / np.maximum(averaged[0], v).sum() for v in averaged[1:]]
    return [(1 - share) * j + share * plain for j, plain in zip(jaccard, d[0, 1:], strict=True)]


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6), persons=st.integers(1, 6), shots=st.integers(2, 7), k1=st.integers(1, 25),
    k2=st.integers(1, 8), share=st.floats(0, 1)
)  # fmt: skip
def test_distances_agree_with_the_formula_and_with_training(
    seed: int, persons: int, shots: int, k1: int, k2: int, share: float
) -> None:
    rows = clusters(seed, persons, shots)
    found = k_reciprocal(rows[1:] @ rows[0], rows[1:], Reranking(1000, k1, k2, share))
    np.testing.assert_allclose(found, reference_distances(rows, k1, k2, share), atol=2e-5)
    offline = 1 - rerank(rows[:1], rows[1:], k1, k2, share)(slice(0, 1))[0]
    np.testing.assert_allclose(found, offline, atol=2e-5)


@pytest.mark.parametrize("candidates", [12, 40])
def test_a_gallery_reranks_the_nearest_entries_that_pass_a_filter(candidates: int) -> None:
    rows = clusters(3, 8, 5)
    gallery = GalleryIndex(6)
    gallery.add(range(1, 40), [NewEntry(f"p{n % 3}") for n in range(39)], rows[1:])
    reranking = Reranking(candidates, 6, 3, 0.3)
    hits = gallery.search_reranked(rows[:1], 10, Filter(exclude_persons=frozenset({"p1"})), reranking)
    left = [n for n in range(39) if n % 3 != 1]
    nearest = sorted(left, key=lambda n: -float(rows[1 + n] @ rows[0]))[:candidates]
    truth = reference_distances(np.concatenate([rows[:1], rows[[1 + n for n in nearest]]]), 6, 3, 0.3)
    ranked = sorted(zip(truth, nearest, strict=True))[:10]
    assert [hit.entry_id for hit in hits] == [n + 1 for _, n in ranked]
    np.testing.assert_allclose([hit.distance for hit in hits], [distance for distance, _ in ranked], atol=2e-5)
    np.testing.assert_allclose([hit.score for hit in hits], [rows[n + 1] @ rows[0] for _, n in ranked], atol=1e-6)
    assert gallery.search_reranked(rows[:1], 10, Filter(cameras=frozenset()), reranking) == []
