"""The official rules on hand-built cases, and a loop over everything as oracle."""

import numpy as np
import pytest

from training.errors import DataError
from training.evaluation import Embedded, Labels, evaluate_embeddings, evaluate_similarity, full_report


def labels(person: list[int], camera: list[int]) -> Labels:
    return Labels(np.array(person, np.int64), np.array(camera, np.int64))


def score(similarity: list[list[float]], query: Labels, gallery: Labels):
    table = np.array(similarity, np.float32)
    return evaluate_similarity(lambda rows: table[rows], query, gallery)


def test_one_query_by_hand() -> None:
    # ranking: positive, negative, positive -> precisions 1/1 and 2/3
    result = score([[0.9, 0.8, 0.7]], labels([1], [1]), labels([1, 2, 1], [2, 2, 3]))
    assert result.mAP == pytest.approx(100 * (1 + 2 / 3) / 2, abs=1e-3)
    # the trapezoid: (1 + 1)/2 at the first hit, (1/2 + 2/3)/2 at the second
    assert result.mAP_official == pytest.approx(100 * (1 + (1 / 2 + 2 / 3) / 2) / 2, abs=1e-3)
    assert result.mINP == pytest.approx(100 * 2 / 3, abs=1e-3)
    assert result.cmc[1] == 100


def test_same_person_in_the_same_camera_is_dropped() -> None:
    result = score([[0.9, 0.8, 0.7]], labels([1], [1]), labels([1, 1, 2], [1, 2, 2]))
    assert (result.mAP, result.cmc[1]) == (100, 100)


def test_junk_has_no_influence_and_a_distractor_is_a_negative() -> None:
    gallery = labels([-1, 0, 1], [2, 2, 2])
    result = score([[0.9, 0.8, 0.7]], labels([1], [1]), gallery)
    assert result.mAP == 50
    assert result.gallery == 2


def test_a_query_without_identity_is_not_scored() -> None:
    query, gallery = labels([1, 0, -1], [1, 1, 1]), labels([1, 0, 0, -1], [2, 2, 3, 2])
    similarity = [[0.9, 0.8, 0.1, 0.0], [0.1, 0.9, 0.8, 0.7], [0.1, 0.9, 0.8, 0.7]]
    assert score(similarity, query, gallery).queries == 1
    rows = Embedded(np.eye(3, 4, dtype=np.float32), query, np.eye(4, dtype=np.float32), gallery)
    verification = full_report(rows).verification
    assert (verification.positives, verification.negatives) == (1, 2)


def test_a_query_without_a_positive_leaves_the_mean() -> None:
    gallery = labels([1, 2, 3], [1, 2, 2])
    result = score([[0.9, 0.1, 0.2], [0.1, 0.9, 0.2]], labels([1, 2], [1, 1]), gallery)
    assert result.queries == 1
    assert result.mAP == 100


def test_ties_keep_the_gallery_order() -> None:
    query = labels([1], [1])
    assert score([[0.5, 0.5]], query, labels([1, 2], [2, 2])).cmc[1] == 100
    assert score([[0.5, 0.5]], query, labels([2, 1], [2, 2])).cmc[1] == 0


def test_nothing_to_measure_is_an_error_in_words() -> None:
    with pytest.raises(DataError, match="no query has a gallery crop"):
        score([[0.5]], labels([1], [1]), labels([1], [1]))


def test_embeddings_that_are_not_finite_are_refused() -> None:
    rows = np.ones((1, 4), np.float32)
    with pytest.raises(DataError, match="not finite"):
        evaluate_embeddings(rows * np.nan, labels([1], [1]), rows, labels([1], [2]))


def brute_force(similarity: np.ndarray, query: Labels, gallery: Labels) -> tuple[list[float], ...]:
    """Matlab's loop over the ranked list, query by query."""
    maps, officials, minps, firsts = [], [], [], []
    for q in range(len(query.person)):
        hits, precisions, trapezoids, rank, previous, last = 0, [], [], 0, 1.0, 0
        for g in sorted(range(len(gallery.person)), key=lambda g: -similarity[q, g]):
            if gallery.person[g] == -1:
                continue
            if gallery.person[g] == query.person[q] and gallery.camera[g] == query.camera[q]:
                continue
            rank += 1
            if gallery.person[g] == query.person[q]:
                hits += 1
                precisions.append(hits / rank)
                trapezoids.append((previous + hits / rank) / 2)
                last = rank
                if hits == 1:
                    firsts.append(rank)
            previous = hits / rank
        if hits:
            maps.append(sum(precisions) / hits)
            officials.append(sum(trapezoids) / hits)
            minps.append(hits / last)
    return maps, officials, minps, firsts


@pytest.mark.parametrize("levels", [5, 10_000])  # five levels of similarity: ties everywhere
def test_against_the_loop(levels: int) -> None:
    rng = np.random.default_rng(0)
    query = Labels(rng.integers(1, 12, 40), rng.integers(1, 4, 40))
    gallery = Labels(rng.integers(-1, 12, 200), rng.integers(1, 4, 200))
    similarity = (rng.integers(0, levels, (40, 200)) / levels).astype(np.float32)
    maps, officials, minps, firsts = brute_force(similarity, query, gallery)
    result = evaluate_similarity(lambda rows: similarity[rows], query, gallery)
    assert result.queries == len(maps)
    assert result.mAP == pytest.approx(100 * np.mean(maps), abs=1e-3)
    assert result.mAP_official == pytest.approx(100 * np.mean(officials), abs=1e-3)
    assert result.mINP == pytest.approx(100 * np.mean(minps), abs=1e-3)
    for rank, value in result.cmc.items():
        assert value == pytest.approx(100 * np.mean(np.array(firsts) <= rank), abs=1e-3)
