"""Searches over HTTP, against brute force over the vectors of the model's definition."""

import base64
from typing import Any

import httpx
import pytest

from tests.service.galleries.town import PATH, VECTORS, brute_force, by_image, check, vector
from tests.support.pictures import png


def test_a_search_by_image_equals_brute_force(town: httpx.Client) -> None:
    check(by_image(town, (3, 50), top_k=7), brute_force(vector(3, 50))[:7])
    check(by_image(town, (3, 50)), brute_force(vector(3, 50))[:10])
    check(by_image(town, (3, 50), top_k=100), brute_force(vector(3, 50)))  # a whole small gallery, ranked


def test_raw_and_json_bodies_give_equal_results(town: httpx.Client) -> None:
    truth = brute_force(vector(4, 50), lambda _, camera: camera in {"c1", "c2"})[:3]
    raw = town.post(f"{PATH}?top_k=3&cameras=c1&cameras=c2", content=png(4, 50), headers={"content-type": "image/png"})
    body = {"images": [base64.b64encode(png(4, 50)).decode()], "top_k": 3, "cameras": ["c1", "c2"]}
    check(raw, truth)
    check(town.post(PATH, json=body), truth)


def test_the_norm_of_a_query_vector_does_not_matter(town: httpx.Client) -> None:
    query = vector(5, 50)
    check(town.post(PATH, json={"vector": query.tolist()}), brute_force(query)[:10])
    short = base64.b64encode((0.25 * query).astype("<f4").tobytes()).decode()
    check(town.post(PATH, json={"vector": short}), brute_force(query)[:10])


def test_a_search_by_entry_does_not_find_the_entry_itself(town: httpx.Client) -> None:
    truth = [hit for hit in brute_force(VECTORS[11]) if hit[0] != 12]
    check(town.post(PATH, json={"entry_id": 12, "top_k": 100}), truth)


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
def test_an_invalid_search_is_refused_with_its_reason(town: httpx.Client, body: dict[str, Any], says: str) -> None:
    answer = town.post(PATH, json=body)
    assert answer.status_code == 422, answer.text
    assert says in answer.json()["detail"]


def test_top_k_over_the_limit_is_refused(town: httpx.Client) -> None:
    answer = town.post(PATH, json={"entry_id": 1, "top_k": 101})
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")


def test_an_unusable_image_fails_the_search_and_is_named(town: httpx.Client) -> None:
    answer = town.post(PATH, files=[("images", ("a", png(1))), ("images", ("b", b"bad"))])
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["at"] == "images.1"


def test_a_search_in_an_empty_gallery_finds_nothing(town: httpx.Client) -> None:
    town.post("/v1/galleries", json={"name": "empty"})
    path = "/v1/galleries/empty/search"
    assert town.post(path, json={"vector": VECTORS[0].tolist()}).json()["hits"] == []
    assert town.post(path, json={"vector": VECTORS[0].tolist(), "group_by": "person"}).json()["persons"] == []
