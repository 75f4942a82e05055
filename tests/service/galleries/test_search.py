"""Searching over HTTP, against brute force over the vectors that the definition of the model gives."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bundle import load_crop
from pan_reid import schemas
from service.core.settings import Settings
from tests.service.index.test_reranking import reference_distances
from tests.support.bundles import HEIGHT, WIDTH, reference_embedding
from tests.support.pictures import png
from tests.support.servers import running

PATH = "/v1/galleries/town/search"
CROPS = [
    # (picture, person, camera)
    *[((person, shot), f"p{person}", f"c{1 + shot % 3}") for person in range(1, 9) for shot in range(5)],
    *[((90 + n, 0), None, "c1") for n in range(4)],
    *[((person, 77), f"p{person}", None) for person in (1, 2)],
]


def seen(n: int) -> dict[str, Any]:
    """When, every third unknown, and in what."""
    at = {} if n % 3 == 0 else {"captured_at": f"2024-05-01T{n // 2:02}:00:00Z"}
    return {**at, "attributes": {"coat": ["red", "blue", None][n % 3], "bags": n % 4, "hat": n % 2 == 0}}


@pytest.fixture(scope="module")
def town(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with running(Settings(bundle=bundle, data=tmp_path_factory.mktemp("data"), max_top_k=100)) as client:
        client.post("/v1/galleries", json={"name": "town"})
        entries = [
            {"image": base64.b64encode(png(*picture)).decode(), "person_id": person, "camera_id": camera, **seen(n)}
            for n, (picture, person, camera) in enumerate(CROPS)
        ]
        answer = client.post("/v1/galleries/town/entries", json={"entries": entries})
        assert [result["entry_id"] for result in answer.json()["results"]] == list(range(1, len(CROPS) + 1))
        yield client


def vector(*picture: int) -> np.ndarray:
    return reference_embedding(load_crop(png(*picture), HEIGHT, WIDTH)[None])[0]


VECTORS = np.stack([vector(*picture) for picture, _, _ in CROPS])


def brute_force(query: np.ndarray, keep: Any = lambda *_: True) -> list[tuple[int, float]]:
    scores = VECTORS @ (query / np.linalg.norm(query))
    kept = [n for n, (_, person, camera) in enumerate(CROPS) if keep(person, camera)]
    return [(n + 1, scores[n]) for n in sorted(kept, key=lambda n: -scores[n])]


def check(answer: httpx.Response, truth: list[tuple[int, float]]) -> schemas.SearchAnswer:
    assert answer.status_code == 200, answer.text
    found = schemas.SearchAnswer.model_validate_json(answer.content)
    assert found.hits is not None
    assert [hit.entry_id for hit in found.hits] == [entry for entry, _ in truth]
    np.testing.assert_allclose([hit.score for hit in found.hits], [score for _, score in truth], atol=1e-5)
    for hit in found.hits:
        assert (hit.person_id, hit.camera_id) == CROPS[hit.entry_id - 1][1:]
    return found


def by_image(town: httpx.Client, *pictures: tuple[int, ...], **options: Any) -> httpx.Response:
    files = [("images", ("x", png(*picture))) for picture in pictures]
    return town.post(PATH, files=files, data=options)


def test_an_image_finds_what_brute_force_finds(town: httpx.Client) -> None:
    check(by_image(town, (3, 50), top_k=7), brute_force(vector(3, 50))[:7])
    check(by_image(town, (3, 50)), brute_force(vector(3, 50))[:10])
    check(by_image(town, (3, 50), top_k=100), brute_force(vector(3, 50)))  # a whole small gallery, ranked


def test_raw_and_json_bodies_search_alike(town: httpx.Client) -> None:
    truth = brute_force(vector(4, 50), lambda _, camera: camera in {"c1", "c2"})[:3]
    raw = town.post(f"{PATH}?top_k=3&cameras=c1&cameras=c2", content=png(4, 50), headers={"content-type": "image/png"})
    body = {"images": [base64.b64encode(png(4, 50)).decode()], "top_k": 3, "cameras": ["c1", "c2"]}
    check(raw, truth)
    check(town.post(PATH, json=body), truth)


def test_a_vector_and_a_vector_of_any_length_search_alike(town: httpx.Client) -> None:
    query = vector(5, 50)
    check(town.post(PATH, json={"vector": query.tolist()}), brute_force(query)[:10])
    short = base64.b64encode((0.25 * query).astype("<f4").tobytes()).decode()
    check(town.post(PATH, json={"vector": short}), brute_force(query)[:10])


def test_several_images_are_fused_by_their_mean(town: httpx.Client) -> None:
    query = vector(2, 50) + vector(2, 51) + vector(6, 52)
    found = check(by_image(town, (2, 50), (2, 51), (6, 52), top_k=20), brute_force(query)[:20])
    assert found.fused == 3


def test_an_entry_finds_others_and_never_itself(town: httpx.Client) -> None:
    truth = [hit for hit in brute_force(VECTORS[11]) if hit[0] != 12]
    check(town.post(PATH, json={"entry_id": 12, "top_k": 100}), truth)


@pytest.mark.parametrize(
    ("options", "keep"),
    [
        ({"cameras": ["c2"]}, lambda _, camera: camera == "c2"),
        ({"cameras": ["c2", "c3", "unheard"]}, lambda _, camera: camera in {"c2", "c3"}),
        ({"cameras": ["unheard"]}, lambda *_: False),
        ({"cameras": []}, lambda *_: False),
        ({"exclude_cameras": ["c1"]}, lambda _, camera: camera != "c1"),
        ({"cameras": ["c1", "c2"], "exclude_cameras": ["c1"]}, lambda _, camera: camera == "c2"),
        ({"camera_id": "c1", "exclude_same_camera": True}, lambda _, camera: camera != "c1"),
        ({"camera_id": "c1"}, lambda *_: True),
        (
            {"camera_id": "c1", "person_id": "p3", "exclude_same_person_same_camera": True},
            lambda person, camera: (person, camera) != ("p3", "c1"),
        ),
    ],
)
def test_filters_keep_exactly_what_they_say(town: httpx.Client, options: dict[str, Any], keep: Any) -> None:
    query = vector(3, 50)
    check(town.post(PATH, json={"vector": query.tolist(), "top_k": 100, **options}), brute_force(query, keep))


@pytest.mark.parametrize(
    ("options", "keep"),
    [
        ({"persons": ["p1", "p2"]}, lambda n: CROPS[n][1] in {"p1", "p2"}),
        ({"exclude_persons": ["p1"]}, lambda n: CROPS[n][1] != "p1"),
        ({"captured_from": "2024-05-01T08:00:00Z"}, lambda n: n % 3 and n // 2 >= 8),
        ({"captured_until": "2024-05-01T10:00:00+02:00"}, lambda n: n % 3 and n // 2 < 8),
        (
            {"captured_from": "2024-05-01T04:00:00Z", "captured_until": "2024-05-01T09:00:00Z", "cameras": ["c2"]},
            lambda n: n % 3 and 4 <= n // 2 < 9 and CROPS[n][2] == "c2",
        ),
        ({"attributes": {"coat": "red"}}, lambda n: n % 3 == 0),
        ({"attributes": {"coat": None}}, lambda n: n % 3 == 2),
        ({"attributes": {"bags": [1, 3.0]}}, lambda n: n % 4 in {1, 3}),
        ({"attributes": {"hat": True, "coat": ["red", "blue"]}}, lambda n: n % 2 == 0 and n % 3 < 2),
        ({"attributes": {"bags": True}}, lambda _: False),
        ({"attributes": {"coat": []}}, lambda _: False),
        ({"attributes": {"shoes": "red"}}, lambda _: False),
    ],
)
def test_persons_times_and_attributes_are_filters(town: httpx.Client, options: dict[str, Any], keep: Any) -> None:
    query = vector(3, 50)
    truth = [(entry, score) for entry, score in brute_force(query) if keep(entry - 1)]
    check(town.post(PATH, json={"vector": query.tolist(), "top_k": 100, **options}), truth)
    if list(options) == ["attributes"]:  # in a form, which knows texts only
        check(by_image(town, (3, 50), top_k=100, attributes=json.dumps(options["attributes"])), truth)


def test_several_of_one_person_are_fused_by_their_best_match(town: httpx.Client) -> None:
    pictures = [(2, 50), (2, 51), (6, 52)]
    vectors = np.stack([vector(*picture) for picture in pictures])
    best = (VECTORS @ vectors.T).max(1)
    truth = sorted(((n + 1, score) for n, score in enumerate(best)), key=lambda hit: -hit[1])
    found = check(by_image(town, *pictures, top_k=20, fuse="best"), truth[:20])
    assert found.fused == 3
    check(town.post(PATH, json={"vectors": vectors.tolist(), "top_k": 20, "fuse": "best"}), truth[:20])
    check(town.post(PATH, json={"vectors": vectors.tolist(), "top_k": 20}), brute_force(vectors.sum(0))[:20])


def test_several_entries_of_one_person_find_others_and_none_of_themselves(town: httpx.Client) -> None:
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


def test_persons_are_ranked_by_their_mean_on_request(town: httpx.Client) -> None:
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


def test_the_best_hits_are_ordered_anew_by_their_neighbours(town: httpx.Client) -> None:
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


def test_the_camera_and_person_of_an_entry_are_the_querys_unless_given(town: httpx.Client) -> None:
    person, camera = CROPS[11][1:]
    others = [hit for hit in brute_force(VECTORS[11], lambda _, at: at != camera) if hit[0] != 12]
    check(town.post(PATH, json={"entry_id": 12, "exclude_same_camera": True, "top_k": 100}), others)
    rule = [hit for hit in brute_force(VECTORS[11], lambda who, at: (who, at) != (person, camera)) if hit[0] != 12]
    check(town.post(PATH, json={"entry_id": 12, "exclude_same_person_same_camera": True, "top_k": 100}), rule)
    given = [hit for hit in brute_force(VECTORS[11], lambda _, at: at != "c1") if hit[0] != 12]
    body = {"entry_id": 12, "exclude_same_camera": True, "camera_id": "c1", "top_k": 100}
    check(town.post(PATH, json=body), given)


def test_persons_are_ranked_by_their_best_entry_with_the_mean_beside(town: httpx.Client) -> None:
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


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "exactly one"),
        ({"entry_id": 1, "vector": [1.0]}, "exactly one"),
        ({"entry_id": 0}, "entry_id"),
        ({"entry_id": True}, "entry_id"),
        ({"entry_id": "1"}, "entry_id"),
        ({"entry_id": 1, "top_k": 0}, "top_k"),
        ({"entry_id": 1, "group_by": "camera"}, "group_by"),
        ({"entry_id": 1, "examples": 0}, "examples"),
        ({"entry_id": 1, "cameras": "c1"}, "cameras"),
        ({"entry_id": 41, "exclude_same_person_same_camera": True}, "person_id and camera_id"),
        ({"vector": VECTORS[0].tolist(), "exclude_same_camera": True}, "camera_id"),
        ({"images": []}, "no image"),
        ({"entry_ids": []}, "at least one"),
        ({"vectors": 3}, "list"),
        ({"entry_id": 1, "entry_ids": [2]}, "exactly one"),
        ({"entry_id": 1, "fuse": "max"}, "fuse"),
        ({"entry_id": 1, "exclude_persons": ["p"] * 1001}, "exclude_persons"),
        ({"entry_id": 1, "captured_from": "2024-05-01T00:00:00"}, "captured_from"),
        ({"entry_id": 1, "captured_from": "2024-05-02T00:00:00Z", "captured_until": "2024-05-01T00:00:00Z"}, "before"),
        ({"entry_id": 1, "attributes": {"a": {"b": 1}}}, "attributes"),
        ({"entry_id": 1, "attributes": "{}"}, "attributes"),
        ({"entry_id": 1, "attributes": {"a": [1] * 101}}, "attributes"),
        ({"entry_id": 1, "rerank": {"k3": 1}}, "k3"),
        ({"entry_id": 1, "rerank": {"candidates": 10_000}}, "candidates"),
        ({"entry_id": 1, "rerank": {"candidates": 5}}, "top_k"),
        ({"entry_id": 1, "rerank": {}, "group_by": "person"}, "group_by"),
        ({"entry_id": 1, "group_score": "mean"}, "group_by"),
    ],
)
def test_a_search_that_makes_no_sense_says_why(town: httpx.Client, body: dict[str, Any], says: str) -> None:
    answer = town.post(PATH, json=body)
    assert answer.status_code == 422, answer.text
    assert says in answer.json()["detail"]


def test_more_hits_than_the_limit_are_refused(town: httpx.Client) -> None:
    answer = town.post(PATH, json={"entry_id": 1, "top_k": 101})
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")


def test_a_bad_image_among_several_fails_the_search_and_is_named(town: httpx.Client) -> None:
    answer = town.post(PATH, files=[("images", ("a", png(1))), ("images", ("b", b"bad"))])
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["at"] == "images.1"


def test_filters_know_at_once_what_was_changed_of_an_entry(town: httpx.Client) -> None:
    town.post("/v1/galleries", json={"name": "village"})
    entries = [{"vector": vector.tolist(), "attributes": {"coat": "red"}} for vector in VECTORS[:2]]
    made = town.post("/v1/galleries/village/entries", json={"entries": entries}).json()["results"]
    changed = {"attributes": {"coat": "blue"}, "captured_at": "2024-05-01T08:00:00Z"}
    path = f"/v1/galleries/village/entries/{made[0]['entry_id']}"
    assert town.patch(path, json=changed).status_code == 200

    def found(**options: Any) -> list[int]:
        body = {"vector": VECTORS[0].tolist(), **options}
        return [hit["entry_id"] for hit in town.post("/v1/galleries/village/search", json=body).json()["hits"]]

    assert found(attributes={"coat": "red"}) == [made[1]["entry_id"]]
    assert found(attributes={"coat": "blue"}) == found(captured_from="2024-01-01T00:00:00Z") == [made[0]["entry_id"]]


def test_a_search_in_an_empty_gallery_finds_nothing(town: httpx.Client) -> None:
    town.post("/v1/galleries", json={"name": "empty"})
    path = "/v1/galleries/empty/search"
    assert town.post(path, json={"vector": VECTORS[0].tolist()}).json()["hits"] == []
    assert town.post(path, json={"vector": VECTORS[0].tolist(), "group_by": "person"}).json()["persons"] == []
