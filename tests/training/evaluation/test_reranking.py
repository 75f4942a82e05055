"""Re-ranking against the published equations written out densely, set by set; and query expansion against its own."""

import numpy as np
import pytest

from training.evaluation import Floats, Labels, blocks, evaluate_similarity, unit
from training.evaluation.query_expansion import expand_queries
from training.evaluation.reranking import rerank


def people(queries: int, rows: int, noise: float, seed: int = 0) -> tuple[Floats, Floats]:
    """Unit rows in clusters, as descriptors of people are."""
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((rows // 6, 24))

    def side(count: int) -> Floats:
        drawn = centre[rng.integers(0, len(centre), count)]
        return unit((drawn + noise * rng.standard_normal((count, 24))).astype(np.float32))

    return side(queries), side(rows)


def published(query: Floats, gallery: Floats, k1: int, k2: int, lambda_value: float) -> np.ndarray:
    """Zhong et al., equations 2 to 12, in the conventions of the authors' code: the probe is among its own k + 1
    neighbours, a set joins with strictly more than two thirds, distances are squared and divided by the row's largest.
    """
    rows = np.concatenate([query, gallery]).astype(np.float64)
    count = len(rows)
    d = ((rows[:, None] - rows[None]) ** 2).sum(2)
    d /= d.max(1, keepdims=True)
    order = np.argsort(d, axis=1, kind="stable")

    def near(i: int, k: int) -> set[int]:
        return set(order[i, : k + 1].tolist())

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in near(i, k) if i in near(j, k)}

    v = np.zeros((count, count))
    for i in range(count):
        core = reciprocal(i, k1)
        whole = set(core)
        for j in core:
            half = reciprocal(j, round(k1 / 2))
            if len(core & half) > 2 / 3 * len(half):
                whole |= half
        for j in whole:
            v[i, j] = np.exp(-d[i, j])
        v[i] /= v[i].sum()
    v = np.stack([v[order[i, :k2]].mean(0) for i in range(count)])
    final = np.empty((len(query), len(gallery)))
    for q in range(len(query)):
        for g in range(len(gallery)):
            i, j = q, len(query) + g
            jaccard = 1 - np.minimum(v[i], v[j]).sum() / np.maximum(v[i], v[j]).sum()
            final[q, g] = (1 - lambda_value) * jaccard + lambda_value * d[i, j]
    return final


@pytest.mark.parametrize(
    ("k1", "k2", "lambda_value", "noise"),
    [(20, 6, 0.3, 0.5), (20, 6, 0.3, 1.0), (5, 3, 0.0, 0.8), (7, 1, 0.3, 0.6), (3, 6, 0.5, 0.6), (1, 2, 0.9, 0.3)],
)
@pytest.mark.parametrize("block_bytes", [2**28, 6000])
def test_reranking_is_the_published_formula(
    k1: int, k2: int, lambda_value: float, noise: float, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)  # the small one: two or three rows at a time
    query, gallery = people(13, 110, noise)
    similarity = rerank(query, gallery, k1, k2, lambda_value)
    found = np.concatenate([similarity(slice(0, 5)), similarity(slice(5, 6)), similarity(slice(6, 13))])
    assert 1 - found == pytest.approx(published(query, gallery, k1, k2, lambda_value), abs=2e-6)


def test_a_mate_behind_a_look_alike_comes_first() -> None:
    """What re-ranking is for: the nearest row is a look-alike, with nearer neighbours of its own than the query."""
    angle = np.deg2rad([0, 25, 27, 28, 29, -24, -34, -36, -38, -40, 180])
    rows = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    query, gallery = rows[:1], rows[1:]
    labels = Labels(np.array([1]), np.array([1]))
    held = Labels(np.array([1, 1, 1, 1, 2, 2, 2, 2, 2, 3]), np.full(10, 2))
    plain = evaluate_similarity(lambda part: query[part] @ gallery.T, labels, held)
    again = evaluate_similarity(rerank(query, gallery, k1=4, k2=1), labels, held)
    assert (plain.cmc[1], again.cmc[1], again.mAP) == (0, 100, 100)


def test_rows_that_are_one_and_the_same_and_galleries_smaller_than_k() -> None:
    same = np.tile(unit(np.ones((1, 4), np.float32)), (60, 1))
    similarity = rerank(same[:5], same[5:])(slice(0, 5))
    assert ((similarity >= 0) & (similarity <= 1)).all()
    query, gallery = people(2, 6, 0.5)
    found = rerank(query, gallery)(slice(0, 2))
    assert 1 - found == pytest.approx(published(query, gallery, 20, 6, 0.3), abs=2e-6)


def test_query_expansion_is_the_weighted_mean_of_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4000)
    query, gallery = people(9, 60, 0.8)
    found = expand_queries(query, gallery, neighbours=4, alpha=2.0)
    for q, row in enumerate(query.astype(np.float64)):
        cosine = gallery @ row
        total = row.copy()
        for g in sorted(range(60), key=lambda g: -cosine[g])[:4]:
            total += max(0.0, cosine[g]) ** 2 * gallery[g]
        assert found[q] == pytest.approx(total / np.linalg.norm(total), abs=1e-6)


def test_rows_opposite_to_a_query_do_not_pull_it() -> None:
    query = np.array([[1, 0]], np.float32)
    gallery = np.array([[-1, 0], [-0.8, 0.6]], np.float32)
    assert expand_queries(query, gallery, neighbours=5).tolist() == query.tolist()
