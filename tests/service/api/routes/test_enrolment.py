"""Enrolment over HTTP: every form of request, and retries with an idempotency key."""

import json
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from PIL import Image

from pan_reid import schemas
from tests.service.api.calls import b64, enrol, expected, files, problem
from tests.support.bundles import HEIGHT, WIDTH
from tests.support.pictures import encode, png


def test_enrols_multipart_with_metadata_raw_images_and_vectors(api: httpx.Client, gallery: str) -> None:
    path = f"/v1/galleries/{gallery}/entries"
    metadata = orjson.dumps([{"person_id": "a", "camera_id": "c1"}, {"person_id": "b"}]).decode()
    multipart = api.post(path, files=files(png(1), png(2)), data={"metadata": metadata})
    raw = api.post(f"{path}?person_id=c&camera_id=c9", content=png(3), headers={"content-type": "image/png"})
    vectors = expected(png(4), png(5)).astype("<f4")
    ready = enrol(
        api,
        gallery,
        {"vector": vectors[0].tolist(), "person_id": "d"},
        {"vector": b64((3 * vectors[1]).tobytes()), "person_id": "e"},
    )
    assert [answer.status_code for answer in (multipart, raw, ready)] == [201, 201, 201]
    for n, person in enumerate("abcde", start=1):
        hits = api.post(f"/v1/galleries/{gallery}/search", files=files(png(n))).json()["hits"]
        assert hits[0]["person_id"] == person
        assert hits[0]["score"] == pytest.approx(1.0, abs=1e-5)
    entries = api.get(path).json()["entries"]
    assert [(entry["person_id"], entry["camera_id"]) for entry in entries] == [
        ("a", "c1"), ("b", None), ("c", "c9"), ("d", None), ("e", None)
    ]  # fmt: skip


def test_an_unusable_crop_fails_alone(api: httpx.Client, gallery: str) -> None:
    good = [{"image": b64(png(n)), "person_id": person} for n, person in enumerate("ab")]
    answer = enrol(api, gallery, good[0], {"image": "%%%"}, good[1])
    assert answer.status_code == 207
    enrolled = schemas.Enrolled.model_validate_json(answer.content)
    assert (enrolled.enrolled, enrolled.failed) == (2, 1)
    assert [result.entry_id is None for result in enrolled.results] == [False, True, False]
    assert enrolled.results[1].error is not None
    assert enrolled.results[1].error.code == "corrupt-image"
    found = api.get(f"/v1/galleries/{gallery}/entries").json()["entries"]
    assert [(entry["entry_id"], entry["person_id"]) for entry in found] == [
        (enrolled.results[0].entry_id, "a"), (enrolled.results[2].entry_id, "b")
    ]  # fmt: skip


def test_a_request_without_any_usable_crop_is_refused(api: httpx.Client, gallery: str) -> None:
    path = f"/v1/galleries/{gallery}/entries"
    problem(api.post(path, content=b"x" * 50, headers={"content-type": "image/png"}), 415, "unsupported-image")
    found = problem(enrol(api, gallery, {"image": b64(b"x")}, {"image": b64(png(1)[:99])}), 422, "unusable-images")
    assert [error["code"] for error in found.errors or []] == ["unsupported-image", "corrupt-image"]
    assert api.get(path).json()["entries"] == []


def test_an_image_without_an_embedding_fails_alone(api: httpx.Client, gallery: str) -> None:
    blank = np.indices((HEIGHT, WIDTH)).sum(0) % 2 + 127  # the mean of every cell is the zero of the model
    empty = encode(Image.fromarray(np.repeat(blank[..., None], 3, axis=2).astype(np.uint8)))
    mixed = enrol(api, gallery, {"image": b64(png(1))}, {"image": b64(empty)}, {"image": b64(png(2))})
    assert mixed.status_code == 207
    assert [one.get("error", {}).get("code") for one in mixed.json()["results"]] == [None, "no-embedding", None]
    problem(enrol(api, gallery, {"image": b64(empty)}), 422, "no-embedding")
    problem(api.post(f"/v1/galleries/{gallery}/search", files=files(empty)), 422, "no-embedding")
    problem(api.post("/v1/embeddings", files=files(empty)), 422, "no-embedding")
    assert api.get(f"/v1/galleries/{gallery}").json()["entries"] == 2
    assert api.get("/readyz").status_code == 200


@pytest.mark.parametrize("metadata", ["[]", "[{}]", "[{}, {}, {}]", "{}", "nonsense", '[{"person": 1}, "x"]'])
def test_metadata_that_does_not_match_the_files_is_refused(api: httpx.Client, gallery: str, metadata: str) -> None:
    answer = api.post(f"/v1/galleries/{gallery}/entries", files=files(png(1), png(2)), data={"metadata": metadata})
    problem(answer, 422, "invalid-request")


@pytest.mark.parametrize("wrong", [{"person": 1}, "x", [], None])
def test_invalid_metadata_fails_alone(api: httpx.Client, gallery: str, wrong: Any) -> None:
    data = {"metadata": json.dumps([wrong, {"person_id": "a"}])}
    answer = api.post(f"/v1/galleries/{gallery}/entries", files=files(png(1), png(2)), data=data)
    assert answer.status_code == 207
    assert [one.get("error", {}).get("code") for one in answer.json()["results"]] == ["invalid-request", None]
    frame = {"boxes": "[[0, 0, 40, 60], [10, 10, 40, 60]]", **data}
    answer = api.post(f"/v1/galleries/{gallery}/entries", files=files(encode(Image.new("RGB", (64, 128)))), data=frame)
    assert [one.get("error", {}).get("code") for one in answer.json()["results"]] == ["invalid-request", None]
    page = api.get(f"/v1/galleries/{gallery}/entries").json()["entries"]
    assert [entry["person_id"] for entry in page] == ["a", "a"]


@pytest.mark.parametrize("field", ["metadata", "boxes"])
def test_the_size_of_form_fields_is_limited(api: httpx.Client, gallery: str, field: str) -> None:
    path = f"/v1/galleries/{gallery}/entries"
    many = api.post(path, files=files(png(1)), data={field: f"[{','.join(['{}'] * 400_000)}]"})
    assert "values" in problem(many, 413, "too-large").detail
    long = api.post(path, files=files(png(1)), data={field: " " * 5_000_000})
    assert "the form fields have more than" in problem(long, 413, "too-large").detail


def test_a_form_accepts_lists_of_the_maximum_length(api: httpx.Client, gallery: str) -> None:
    enrol(api, gallery, *({"image": b64(png(n)), "camera_id": f"c{n}", "person_id": f"p{n}"} for n in (0, 1, 999)))
    path = f"/v1/galleries/{gallery}/search"

    def search(**lists: list[str]) -> httpx.Response:
        return api.post(path, files=files(png(1)), data={"top_k": "50", **lists})

    most = [f"p{n}" for n in range(1000)]
    cameras, strangers = [f"c{n}" for n in range(1000)], [f"x{n}" for n in range(1000)]
    answer = search(persons=most, cameras=cameras, exclude_persons=strangers, exclude_cameras=strangers)
    assert answer.status_code == 200, answer.text
    assert {hit["person_id"] for hit in answer.json()["hits"]} == {"p0", "p1", "p999"}
    assert {hit["person_id"] for hit in search(persons=most[2:]).json()["hits"]} == {"p999"}
    assert search(persons=[*most, "one more"]).status_code == 422
    assert "more than 5,000 fields" in problem(search(persons=5 * most), 413, "too-large").detail


def test_a_retry_with_the_same_key_gets_the_same_response_and_enrols_nothing(api: httpx.Client, gallery: str) -> None:
    entries = ({"image": b64(png(1))}, {"image": b64(b"bad")})
    first = enrol(api, gallery, *entries, **{"Idempotency-Key": "k1"})
    again = enrol(api, gallery, *entries, **{"Idempotency-Key": "k1"})
    assert (first.status_code, first.content) == (again.status_code, again.content) == (207, again.content)
    assert api.get(f"/v1/galleries/{gallery}").json()["entries"] == 1
    other = enrol(api, gallery, {"image": b64(png(2))}, **{"Idempotency-Key": "k1"})
    assert "another request" in problem(other, 422, "invalid-request").detail
    path = f"/v1/galleries/{gallery}/entries"  # the framing of the body does not matter
    keyed = {"Idempotency-Key": "k2"}
    boundaries = [api.post(path, files=files(png(5)), headers=keyed).json() for _ in range(2)]
    assert boundaries[0] == boundaries[1]
    assert api.get(f"/v1/galleries/{gallery}").json()["entries"] == 2


def test_an_empty_form_field_is_ignored(api: httpx.Client, gallery: str) -> None:
    enrol(api, gallery, {"image": b64(png(1)), "person_id": "a"})
    form = {"top_k": "5", "cameras": "", "camera_id": "", "person_id": "", "group_by": "", "exclude_cameras": ""}
    answer = api.post(f"/v1/galleries/{gallery}/search", files=files(png(1)), data=form)
    assert [hit["person_id"] for hit in answer.json()["hits"]] == ["a"]
