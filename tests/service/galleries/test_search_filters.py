"""Filters of searches, against brute force."""

import json
from typing import Any

import httpx
import pytest

from tests.service.galleries.town import CROPS, PATH, VECTORS, brute_force, by_image, check, vector


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
def test_filters_by_camera(town: httpx.Client, options: dict[str, Any], keep: Any) -> None:
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
def test_person_time_and_attribute_filters_equal_brute_force(
    town: httpx.Client, options: dict[str, Any], keep: Any
) -> None:
    query = vector(3, 50)
    truth = [(entry, score) for entry, score in brute_force(query) if keep(entry - 1)]
    check(town.post(PATH, json={"vector": query.tolist(), "top_k": 100, **options}), truth)
    if list(options) == ["attributes"]:  # in a form, which has only texts
        check(by_image(town, (3, 50), top_k=100, attributes=json.dumps(options["attributes"])), truth)


def test_the_query_has_the_camera_and_person_of_its_entry_by_default(town: httpx.Client) -> None:
    person, camera = CROPS[11][1:]
    others = [hit for hit in brute_force(VECTORS[11], lambda _, at: at != camera) if hit[0] != 12]
    check(town.post(PATH, json={"entry_id": 12, "exclude_same_camera": True, "top_k": 100}), others)
    rule = [hit for hit in brute_force(VECTORS[11], lambda who, at: (who, at) != (person, camera)) if hit[0] != 12]
    check(town.post(PATH, json={"entry_id": 12, "exclude_same_person_same_camera": True, "top_k": 100}), rule)
    given = [hit for hit in brute_force(VECTORS[11], lambda _, at: at != "c1") if hit[0] != 12]
    body = {"entry_id": 12, "exclude_same_camera": True, "camera_id": "c1", "top_k": 100}
    check(town.post(PATH, json=body), given)


def test_filters_use_changed_metadata_at_once(town: httpx.Client) -> None:
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
