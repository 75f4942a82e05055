"""Fused, grouped and re-ranked searches, against brute force."""

import json

import httpx
import numpy as np
import pytest

from pan_reid import schemas
from tests.service.galleries.town import CROPS, PATH, VECTORS, brute_force, by_image, check, vector
from tests.service.index.test_reranking import reference_distances


def test_several_images_are_fused_by_their_mean(town: httpx.Client) -> None:
    query = vector(2, 50) + vector(2, 51) + vector(6, 52)
    found = check(by_image(town, (2, 50), (2, 51), (6, 52), top_k=20), brute_force(query)[:20])
    assert found.fused == 3


def test_several_images_are_fused_by_their_best_match(town: httpx.Client) -> None:
    pictures = [(2, 50), (2, 51), (6, 52)]
    vectors = np.stack([vector(*picture) for picture in pictures])
    best = (VECTORS @ vectors.T).max(1)
    truth = sorted(((n + 1, score) for n, score in enumerate(best)), key=lambda hit: -hit[1])
    found = check(by_image(town, *pictures, top_k=20, fuse="best"), truth[:20])
    assert found.fused == 3
    check(town.post(PATH, json={"vectors": vectors.tolist(), "top_k": 20, "fuse": "best"}), truth[:20])
    check(town.post(PATH, json={"vectors": vectors.tolist(), "top_k": 20}), brute_force(vectors.sum(0))[:20])


def test_a_search_by_entries_does_not_find_these_entries(town: httpx.Client) -> None:
    own = [1, 2, 41]  # at c1, at c2, without person or camera
    for fuse, scores in [("best", (VECTORS @ VECTORS[[0, 1, 40]].T).max(1)), ("mean", None)]:
        mean = VECTORS[[0, 1, 40]].sum(0)
        scores = VECTORS @ mean / np.linalg.norm(mean) if scores is None else scores
        truth = [(n + 1, scores[n]) for n in np.argsort(-scores) if n + 1 not in own]
        check(town.post(PATH, json={"entry_ids": own, "top_k": 100, "fuse": fuse}), truth)
        elsewhere = [hit for hit in truth if CROPS[hit[0] - 1][2] not in {"c1", "c2"}]
        check(
            town.post(PATH, json={"entry_ids": own, "top_k": 100, "fuse": fuse, "exclude_same_camera": True}), elsewhere
        )
    rule = {"entry_ids": own, "top_k": 100, "exclude_same_person_same_camera": True}  # p1 at c1 and at c2
    mean_truth = [hit for hit in truth if CROPS[hit[0] - 1][1:] not in {("p1", "c1"), ("p1", "c2")}]
    check(town.post(PATH, json=rule), mean_truth)
    missing = town.post(PATH, json={"entry_ids": [1, 999]})
    assert (missing.status_code, "999" in missing.json()["detail"]) == (404, True)


def test_persons_are_ranked_by_their_mean_score_on_request(town: httpx.Client) -> None:
    query = vector(3, 50)
    body = {"vector": query.tolist(), "group_by": "person", "group_score": "mean", "top_k": 5, "threshold": 0.5}
    found = schemas.SearchAnswer.model_validate_json(town.post(PATH, json=body).content)
    scores: dict[str, list[float]] = {}
    for entry, score in brute_force(query, lambda person, _: person is not None):
        scores.setdefault(str(CROPS[entry - 1][1]), []).append(score)
    truth = sorted(((np.mean(own), person) for person, own in scores.items()), reverse=True)[:5]
    assert found.persons is not None
    assert [one.person_id for one in found.persons] == [person for _, person in truth]
    for one, (mean, person) in zip(found.persons, truth, strict=True):
        assert (one.score, one.mean, one.best) == pytest.approx((mean, mean, max(scores[person])), abs=1e-5)
        assert one.verdict == ("match" if mean >= 0.5 else "unknown")


def test_re_ranking_equals_its_reference(town: httpx.Client) -> None:
    query = vector(3, 50)
    how = {"candidates": 30, "k1": 6, "k2": 3, "lambda": 0.2}
    answer = town.post(PATH, json={"vector": query.tolist(), "top_k": 12, "rerank": how})
    found = schemas.SearchAnswer.model_validate_json(answer.content).hits
    nearest = [entry - 1 for entry, _ in brute_force(query)[:30]]
    distance = reference_distances(np.stack([query, *VECTORS[nearest]]), 6, 3, 0.2)
    truth = sorted(zip(distance, nearest, strict=True))[:12]
    assert found is not None
    assert [hit.entry_id for hit in found] == [n + 1 for _, n in truth]
    assert [hit.distance for hit in found] == pytest.approx([far for far, _ in truth], abs=1e-4)
    assert [hit.score for hit in found] == pytest.approx([VECTORS[n] @ query for _, n in truth], abs=1e-5)
    form = by_image(town, (3, 50), top_k=12, rerank=json.dumps(how)).json()["hits"]
    assert [hit["entry_id"] for hit in form] == [hit.entry_id for hit in found]


def test_persons_are_ranked_by_their_best_score(town: httpx.Client) -> None:
    query = vector(3, 50)
    answer = town.post(
        PATH,
        json={"vector": query.tolist(), "group_by": "person", "top_k": 4, "examples": 2, "exclude_cameras": ["c2"]},
    )
    found = schemas.SearchAnswer.model_validate_json(answer.content)
    assert found.hits is None
    truth: dict[str, list[tuple[int, float]]] = {}
    for entry, score in brute_force(query, lambda person, camera: person is not None and camera != "c2"):
        truth.setdefault(CROPS[entry - 1][1], []).append((entry, score))  # type: ignore[arg-type]
    best_four = list(truth)[:4]
    assert found.persons is not None
    assert [person.person_id for person in found.persons] == best_four
    for person in found.persons:
        own = truth[person.person_id]
        assert person.entries == len(own)
        assert person.best == pytest.approx(own[0][1], abs=1e-5)
        assert person.mean == pytest.approx(np.mean([score for _, score in own]), abs=1e-5)
        assert [hit.entry_id for hit in person.hits] == [entry for entry, _ in own[:2]]
