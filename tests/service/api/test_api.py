"""The API over HTTP: galleries, entries, people, the service itself, and how it says no."""

import base64
import gzip
import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from PIL import Image

from bundle import load_crop
from pan_reid import schemas
from tests.support.bundles import DIM, HEIGHT, WIDTH, reference_embedding
from tests.support.pictures import REFUSALS, encode, hostile, png, unusual
from tests.support.servers import pan_serve

MULTIPART = "multipart/form-data; boundary=b"
PART = b"--b\r\nContent-Disposition: form-data; "


def expected(*pictures: bytes) -> np.ndarray:
    return reference_embedding(np.stack([load_crop(picture, HEIGHT, WIDTH) for picture in pictures]))


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def files(*pictures: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", (f"{n}.png", picture)) for n, picture in enumerate(pictures)]


def problem(answer: httpx.Response, status: int, code: str) -> schemas.Problem:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = schemas.Problem.model_validate_json(answer.content)
    assert (found.status, found.code) == (status, code)
    assert found.request_id == answer.headers["x-request-id"]
    assert found.detail
    return found


def enrol(api: httpx.Client, gallery: str, *entries: dict[str, Any], **headers: str) -> httpx.Response:
    return api.post(f"/v1/galleries/{gallery}/entries", json={"entries": list(entries)}, headers=headers)


def ids(answer: httpx.Response) -> list[int]:
    enrolled = schemas.Enrolled.model_validate_json(answer.content)
    return [result.entry_id for result in enrolled.results if result.entry_id is not None]


# -- embeddings


def test_embeds_multipart_raw_and_json_alike(api: httpx.Client) -> None:
    truth = expected(png(1), png(2))
    multipart = api.post("/v1/embeddings", files=files(png(1), png(2)))
    json = api.post("/v1/embeddings", json={"images": [b64(png(1)), b64(png(2))]})
    for answer in (multipart, json):
        found = schemas.Embeddings.model_validate_json(answer.content)
        assert answer.status_code == 200
        assert found.dim == DIM
        np.testing.assert_allclose([item.embedding for item in found.embeddings], truth, atol=1e-5)
    raw = api.post("/v1/embeddings", content=png(2), headers={"content-type": "image/png"})
    np.testing.assert_allclose(raw.json()["embeddings"][0]["embedding"], truth[1], atol=1e-5)


def test_embeddings_come_as_base64_or_npy_on_request(api: httpx.Client) -> None:
    truth = expected(png(1), png(2))
    answer = api.post("/v1/embeddings?encoding=base64", files=files(png(1), png(2)))
    texts = [item["embedding"] for item in answer.json()["embeddings"]]
    np.testing.assert_allclose([np.frombuffer(base64.b64decode(text), "<f4") for text in texts], truth, atol=1e-5)
    answer = api.post("/v1/embeddings", files=files(png(1), png(2)), headers={"accept": "application/octet-stream"})
    assert answer.headers["content-type"] == "application/octet-stream"
    array = np.load(io.BytesIO(answer.content), allow_pickle=False)
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, truth, atol=1e-5)


def test_a_bad_image_fails_alone_in_json_and_all_in_binary(api: httpx.Client) -> None:
    answer = api.post("/v1/embeddings", files=files(png(1), b"nonsense", png(2)))
    assert answer.status_code == 207
    found = schemas.Embeddings.model_validate_json(answer.content).embeddings
    assert found[1].error is not None
    assert found[1].error.code == "unsupported-image"
    np.testing.assert_allclose([found[0].embedding, found[2].embedding], expected(png(1), png(2)), atol=1e-5)
    binary = api.post("/v1/embeddings", files=files(png(1), b"no"), headers={"accept": "application/octet-stream"})
    assert problem(binary, 422, "unusable-images").errors == [
        {"at": "images.1", "code": "unsupported-image", "problem": found[1].error.detail.replace("8 bytes", "2 bytes")}
    ]


@pytest.mark.parametrize("name", hostile())
def test_a_hostile_image_is_answered_4xx_and_its_mates_are_unharmed(api: httpx.Client, name: str) -> None:
    data, status = hostile()[name]
    alone = api.post("/v1/embeddings", content=data, headers={"content-type": "image/jpeg"})
    assert alone.status_code == status, alone.text
    assert alone.json()["code"] in REFUSALS
    among = api.post("/v1/embeddings", files=files(png(1), data, png(2)))
    assert among.status_code == 207
    found = among.json()["embeddings"]
    np.testing.assert_allclose([found[0]["embedding"], found[2]["embedding"]], expected(png(1), png(2)), atol=1e-5)


@pytest.mark.parametrize("name", unusual())
def test_an_unusual_image_embeds(api: httpx.Client, name: str) -> None:
    answer = api.post("/v1/embeddings", content=unusual()[name], headers={"content-type": "image/png"})
    assert answer.status_code == 200, answer.text
    vector = np.array(answer.json()["embeddings"][0]["embedding"])
    np.testing.assert_allclose(vector @ vector, 1.0, atol=1e-5)
    coloured = {
        "cmyk",
        "webp",
        "bmp",
        "alpha",
        "animated-png",
        "animated-webp",
        "trailing-bytes",
        "palette",
        "jpeg-zip",
    }
    if name in coloured:  # the first frame, in the colours of the plain picture
        assert vector @ expected(png(1))[0] > 0.98


# -- galleries


def test_a_gallery_is_made_listed_changed_and_erased(api: httpx.Client) -> None:
    made = api.post("/v1/galleries", json={"name": "mall", "purpose": "lost children"})
    assert made.status_code == 201
    assert made.headers["location"] == "/v1/galleries/mall"
    gallery = schemas.Gallery.model_validate_json(made.content)
    assert (gallery.purpose, gallery.index, gallery.entries, gallery.searchable) == ("lost children", "auto", 0, True)
    assert gallery.fingerprint == api.get("/v1/model").json()["fingerprint"]
    problem(api.post("/v1/galleries", json={"name": "mall"}), 409, "conflict")
    changed = api.patch("/v1/galleries/mall", json={"purpose": "found children"})
    assert changed.json() == {**made.json(), "purpose": "found children"}
    assert changed.json() in api.get("/v1/galleries").json()["galleries"]
    enrol(api, "mall", {"image": b64(png(1))}, {"image": b64(png(2)), "person_id": "x"})
    assert (api.get("/v1/galleries/mall").json()["entries"], api.get("/v1/galleries/mall").json()["persons"]) == (2, 1)
    receipt = schemas.ErasureReceipt.model_validate_json(api.delete("/v1/galleries/mall").content)
    assert (receipt.gallery, receipt.entries) == ("mall", 2)
    for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/entries"), ("GET", "/persons")]:
        problem(api.request(method, f"/v1/galleries/mall{path}"), 404, "not-found")
    problem(api.post("/v1/galleries/mall/search", json={"entry_id": 1}), 404, "not-found")
    problem(enrol(api, "mall", {"image": b64(png(1))}), 404, "not-found")
    assert api.post("/v1/galleries", json={"name": "mall"}).json()["entries"] == 0


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a b", "x" * 65, "ü", None, 7])
def test_a_gallery_name_that_would_not_fit_a_path_is_refused(api: httpx.Client, name: object) -> None:
    problem(api.post("/v1/galleries", json={"name": name}), 422, "invalid-request")


# -- entries


def test_an_entry_keeps_what_is_known_of_it(api: httpx.Client, gallery: str) -> None:
    info = {
        "person_id": "Ann / 7 ü",
        "camera_id": "c1",
        "captured_at": "2024-02-29T12:00:00.123456+02:00",
        "attributes": {"file": "a.jpg", "score": 0.5, "n": 3, "ok": True, "none": None},
    }
    (entry_id,) = ids(enrol(api, gallery, {"image": b64(png(1)), **info}))
    entry = schemas.Entry.model_validate_json(api.get(f"/v1/galleries/{gallery}/entries/{entry_id}").content)
    assert (entry.person_id, entry.camera_id) == ("Ann / 7 ü", "c1")
    assert entry.captured_at == datetime(2024, 2, 29, 10, 0, 0, 123456, UTC)
    assert entry.attributes == info["attributes"]
    hit = api.post(f"/v1/galleries/{gallery}/search", files=files(png(1))).json()["hits"][0]
    assert (hit["entry_id"], hit["attributes"]) == (entry_id, info["attributes"])
    assert hit["score"] == pytest.approx(1.0, abs=1e-5)


def test_enrols_multipart_with_metadata_raw_and_ready_vectors(api: httpx.Client, gallery: str) -> None:
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


def test_a_bad_crop_fails_alone_and_the_others_are_enrolled(api: httpx.Client, gallery: str) -> None:
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


def test_nothing_is_enrolled_when_no_crop_can_be_used(api: httpx.Client, gallery: str) -> None:
    path = f"/v1/galleries/{gallery}/entries"
    problem(api.post(path, content=b"x" * 50, headers={"content-type": "image/png"}), 415, "unsupported-image")
    found = problem(enrol(api, gallery, {"image": b64(b"x")}, {"image": b64(png(1)[:99])}), 422, "unusable-images")
    assert [error["code"] for error in found.errors or []] == ["unsupported-image", "corrupt-image"]
    assert api.get(path).json()["entries"] == []


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"person": "a"}, "person"),
        ({"person_id": ""}, "person_id"),
        ({"person_id": "a\x00b"}, "person_id"),
        ({"camera_id": "x" * 129}, "camera_id"),
        ({"captured_at": "2024-01-01T00:00:00"}, "captured_at"),
        ({"attributes": {"a": {"b": 1}}}, "attributes"),
        ({"attributes": {str(n): n for n in range(99)}}, "attributes"),
        ({"vector": [1.0] * DIM}, "either"),
    ],
)
def test_an_entry_that_cannot_be_used_is_named_and_fails_alone(
    api: httpx.Client, gallery: str, entry: dict[str, Any], says: str
) -> None:
    wrong = {"image": b64(png(2)), **entry}
    answer = enrol(api, gallery, wrong, {"image": b64(png(1))})
    assert (answer.status_code, answer.json()["enrolled"], len(ids(answer))) == (207, 1, 1)
    error = answer.json()["results"][0]["error"]
    assert (error["code"], says in error["detail"]) == ("invalid-request", True), error
    assert says in problem(enrol(api, gallery, wrong), 422, "invalid-request").detail
    none = problem(enrol(api, gallery, wrong, wrong), 422, "invalid-request")
    assert "none of the 2 crops" in none.detail
    assert [one["at"] for one in none.errors or []] == ["entries.0", "entries.1"]
    assert api.get(f"/v1/galleries/{gallery}").json()["entries"] == 1


@pytest.mark.parametrize(
    "vector",
    [
        [0.0] * DIM,
        [1.0] * (DIM - 1),
        ["a"] * DIM,
        ["1"] * DIM,
        [True] * DIM,
        [1.0] * (DIM - 1) + [None],
        [[1.0] * DIM],
        "AAAA",
        "no base64",
        3,
        None,
        b64(b"\xff" * 4 * DIM),
        [1e39] * DIM,
        [10**400] * DIM,
        [5e-324] * DIM,
        [1.4e-45, 1.4e-45] + [0.0] * (DIM - 2),
        b64(np.full(DIM, np.inf, "<f4").tobytes()),
        b64(np.full(DIM, 1e-45, "<f4").tobytes()),
    ],
    ids=[
        "zero",
        "short",
        "text",
        "numbers-as-text",
        "bool",
        "none",
        "nested",
        "few-bytes",
        "not-base64",
        "number",
        "null",
        "nan",
        "too-large",
        "huge",
        "denormal",
        "denormal-in-float32",
        "infinite",
        "denormal-in-base64",
    ],
)
def test_a_vector_that_is_none_is_refused(api: httpx.Client, gallery: str, vector: object) -> None:
    problem(enrol(api, gallery, {"vector": vector}), 422, "invalid-request")
    problem(api.post(f"/v1/galleries/{gallery}/search", json={"vector": vector}), 422, "invalid-request")
    line = {"content": json.dumps({"vector": vector}), "headers": {"Content-Type": "application/x-ndjson"}}
    streamed = api.post(f"/v1/galleries/{gallery}/entries/stream", **line).text.splitlines()
    assert orjson.loads(streamed[0])["error"]["code"] == "invalid-request"
    assert api.get(f"/v1/galleries/{gallery}").json()["entries"] == 0


@pytest.mark.parametrize("scale", [1e38, 3.4e38, 1e-30, 2e-38])
def test_a_vector_of_any_length_that_float32_holds_is_its_direction(
    api: httpx.Client, gallery: str, scale: float
) -> None:
    direction = np.random.default_rng(0).uniform(-1, 1, DIM)
    direction[0] = 1.0
    numbers = (direction * scale).astype("<f4")
    enrol(api, gallery, {"vector": numbers.tolist()}, {"vector": b64(numbers.tobytes())})
    for query in ({"vector": direction.tolist()}, {"vector": numbers.tolist()}, {"entry_id": 1}):
        if "entry_id" in query:
            query["entry_id"] = api.get(f"/v1/galleries/{gallery}/entries").json()["entries"][0]["entry_id"]
        hits = api.post(f"/v1/galleries/{gallery}/search", json=query).json()["hits"]
        assert [hit["score"] for hit in hits] == pytest.approx([1.0] * len(hits), abs=1e-5)
        assert len(hits) == (1 if "entry_id" in query else 2)


def test_a_picture_in_which_the_model_finds_nothing_fails_alone(api: httpx.Client, gallery: str) -> None:
    blank = np.indices((HEIGHT, WIDTH)).sum(0) % 2 + 127  # every cell's mean is that of the model's zero
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
def test_metadata_that_does_not_fit_the_files_is_refused(api: httpx.Client, gallery: str, metadata: str) -> None:
    answer = api.post(f"/v1/galleries/{gallery}/entries", files=files(png(1), png(2)), data={"metadata": metadata})
    problem(answer, 422, "invalid-request")


@pytest.mark.parametrize("wrong", [{"person": 1}, "x", [], None])
def test_metadata_that_is_wrong_fails_alone(api: httpx.Client, gallery: str, wrong: Any) -> None:
    data = {"metadata": json.dumps([wrong, {"person_id": "a"}])}
    answer = api.post(f"/v1/galleries/{gallery}/entries", files=files(png(1), png(2)), data=data)
    assert answer.status_code == 207
    assert [one.get("error", {}).get("code") for one in answer.json()["results"]] == ["invalid-request", None]
    frame = {"boxes": "[[0, 0, 40, 60], [10, 10, 40, 60]]", **data}
    answer = api.post(f"/v1/galleries/{gallery}/entries", files=files(encode(Image.new("RGB", (64, 128)))), data=frame)
    assert [one.get("error", {}).get("code") for one in answer.json()["results"]] == ["invalid-request", None]
    page = api.get(f"/v1/galleries/{gallery}/entries").json()["entries"]
    assert [entry["person_id"] for entry in page] == ["a", "a"]


@pytest.mark.parametrize("vector", [[0.0] * DIM, [1.0], "AAAA", "no base64!", {}, None])
def test_a_vector_that_is_malformed_fails_alone(api: httpx.Client, gallery: str, vector: Any) -> None:
    answer = enrol(api, gallery, {"vector": vector}, {"vector": [1.0] * DIM, "person_id": "a"})
    assert answer.status_code == 207
    assert answer.json()["results"][0]["error"]["code"] == "invalid-request"
    assert len(ids(answer)) == 1


def test_integers_in_attributes_are_compared_exactly(api: httpx.Client, gallery: str) -> None:
    numbers = [2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**63, 2**64 - 1, 3]
    enrol(api, gallery, *[{"vector": [1.0] * DIM, "attributes": {"n": n}, "person_id": str(n)} for n in numbers])

    def found(number: str) -> list[str]:
        query = f'{{"vector": {[1.0] * DIM}, "attributes": {{"n": {number}}}}}'
        headers = {"Content-Type": "application/json"}
        answer = api.post(f"/v1/galleries/{gallery}/search", content=query, headers=headers)
        return [hit["person_id"] for hit in answer.json()["hits"]]

    for number in numbers:
        assert found(str(number)) == [str(number)]
    for text, number in [("9007199254740992.0", 2**53), ("9.223372036854775808e18", 2**63), ("3.0", 3), ("0.3e1", 3)]:
        assert found(text) == [str(number)]
    assert found("9007199254740994") == found("1e300") == []


@pytest.mark.parametrize("field", ["metadata", "boxes"])
def test_form_fields_have_a_bound(api: httpx.Client, gallery: str, field: str) -> None:
    path = f"/v1/galleries/{gallery}/entries"
    many = api.post(path, files=files(png(1)), data={field: f"[{','.join(['{}'] * 400_000)}]"})
    assert "values" in problem(many, 413, "too-large").detail
    long = api.post(path, files=files(png(1)), data={field: " " * 5_000_000})
    assert "the form fields have more than" in problem(long, 413, "too-large").detail


def test_a_form_takes_lists_as_long_as_the_schema_allows(api: httpx.Client, gallery: str) -> None:
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


def test_a_retry_with_the_same_key_gets_the_same_answer_and_enrols_nothing(api: httpx.Client, gallery: str) -> None:
    entries = ({"image": b64(png(1))}, {"image": b64(b"bad")})
    first = enrol(api, gallery, *entries, **{"Idempotency-Key": "k1"})
    again = enrol(api, gallery, *entries, **{"Idempotency-Key": "k1"})
    assert (first.status_code, first.content) == (again.status_code, again.content) == (207, again.content)
    assert api.get(f"/v1/galleries/{gallery}").json()["entries"] == 1
    other = enrol(api, gallery, {"image": b64(png(2))}, **{"Idempotency-Key": "k1"})
    assert "another request" in problem(other, 422, "invalid-request").detail
    path = f"/v1/galleries/{gallery}/entries"  # however a client frames it anew
    keyed = {"Idempotency-Key": "k2"}
    boundaries = [api.post(path, files=files(png(5)), headers=keyed).json() for _ in range(2)]
    assert boundaries[0] == boundaries[1]
    assert api.get(f"/v1/galleries/{gallery}").json()["entries"] == 2


def test_entries_are_paged_and_filtered(api: httpx.Client, gallery: str) -> None:
    made = ids(
        enrol(
            api,
            gallery,
            *({"image": b64(png(n)), "person_id": f"p{n % 3}", "camera_id": f"c{n % 2}"} for n in range(10)),
        )
    )
    path, seen, cursor = f"/v1/galleries/{gallery}/entries", [], None
    while True:
        page = schemas.EntryPage.model_validate_json(
            api.get(path, params={"limit": 4, **({"cursor": cursor} if cursor else {})}).content
        )
        assert len(page.entries) <= 4
        seen += [entry.entry_id for entry in page.entries]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == made
    chosen = api.get(path, params={"person_id": "p1", "camera_id": "c0"}).json()["entries"]
    assert [entry["entry_id"] for entry in chosen] == [made[n] for n in range(10) if n % 3 == 1 and n % 2 == 0]
    for wrong in ({"limit": 0}, {"limit": 1001}, {"cursor": "x"}, {"cursor": str(2**64)}):
        problem(api.get(path, params=wrong), 422, "invalid-request")


def test_an_entry_is_relabelled_and_searches_know_at_once(api: httpx.Client, gallery: str) -> None:
    (entry_id,) = ids(enrol(api, gallery, {"image": b64(png(1)), "person_id": "a", "camera_id": "c1"}))
    path = f"/v1/galleries/{gallery}/entries/{entry_id}"
    assert api.patch(path, json={"person_id": "b"}).json()["camera_id"] == "c1"
    assert api.patch(path, json={"camera_id": None, "attributes": {"x": 1}}).json()["person_id"] == "b"
    found = api.post(f"/v1/galleries/{gallery}/search", files=files(png(1)), data={"group_by": "person"}).json()
    assert [person["person_id"] for person in found["persons"]] == ["b"]
    assert api.get(path).json()["attributes"] == {"x": 1}
    problem(api.patch(path, json={"vector": [1]}), 422, "invalid-request")


def test_a_deleted_entry_is_gone_everywhere(api: httpx.Client, gallery: str) -> None:
    one, two = ids(enrol(api, gallery, {"image": b64(png(1))}, {"image": b64(png(2))}))
    path = f"/v1/galleries/{gallery}/entries/{one}"
    assert api.delete(path).status_code == 204
    for answer in (api.get(path), api.delete(path), api.patch(path, json={})):
        problem(answer, 404, "not-found")
    problem(api.post(f"/v1/galleries/{gallery}/search", json={"entry_id": one}), 404, "not-found")
    hits = api.post(f"/v1/galleries/{gallery}/search", files=files(png(1))).json()["hits"]
    assert [hit["entry_id"] for hit in hits] == [two]
    other = enrol(api, gallery, {"image": b64(png(1))})
    assert ids(other)[0] > two  # an id is never given again


def test_an_entry_of_another_gallery_is_not_found(api: httpx.Client, gallery: str) -> None:
    (entry_id,) = ids(enrol(api, gallery, {"image": b64(png(1))}))
    api.post("/v1/galleries", json={"name": "elsewhere"})
    path = f"/v1/galleries/elsewhere/entries/{entry_id}"
    for answer in (api.get(path), api.delete(path), api.patch(path, json={"person_id": "x"})):
        problem(answer, 404, "not-found")
    assert api.get(f"/v1/galleries/{gallery}/entries/{entry_id}").json()["person_id"] is None


# -- persons


def test_persons_are_counted_paged_and_erased_with_a_receipt(api: httpx.Client, gallery: str) -> None:
    crops = [("ann", "c1"), ("ann", "c2"), ("ben/x", "c1"), (None, "c1"), ("ann", "c1")]
    entries = [
        {"image": b64(png(n)), "person_id": person, "camera_id": camera} for n, (person, camera) in enumerate(crops)
    ]
    made = ids(enrol(api, gallery, *entries))
    path = f"/v1/galleries/{gallery}/persons"
    page = api.get(path, params={"limit": 1}).json()
    assert page["persons"] == [{"person_id": "ann", "entries": 3, "cameras": 2}]
    page = api.get(path, params={"limit": 1, "cursor": page["next_cursor"]}).json()
    assert page == {"persons": [{"person_id": "ben/x", "entries": 1, "cameras": 1}], "next_cursor": None}
    receipt = schemas.ErasureReceipt.model_validate_json(api.delete(path, params={"person_id": "ann"}).content)
    assert (receipt.gallery, receipt.person_id, receipt.entries) == (gallery, "ann", 3)
    problem(api.delete(path, params={"person_id": "ann"}), 404, "not-found")
    assert api.delete(path, params={"person_id": "ben/x"}).json()["entries"] == 1
    assert api.get(path).json()["persons"] == []
    hits = api.post(f"/v1/galleries/{gallery}/search", files=files(png(0))).json()["hits"]
    assert [hit["entry_id"] for hit in hits] == [made[3]]


# -- how it says no


def test_routes_and_methods_that_are_not_there_are_problems(api: httpx.Client) -> None:
    problem(api.get("/nowhere"), 404, "not-found")
    answer = api.put("/v1/galleries")
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, HEAD, POST"
    answer = api.get("/v1/galleries/none/entries/stream")
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"
    assert api.put("/v1/galleries/none/entries/7").headers["allow"] == "DELETE, GET, HEAD, PATCH"
    problem(api.get("/v1/galleries/none"), 404, "not-found")
    problem(api.get("/v1/galleries/-bad-"), 422, "invalid-request")
    for entry in ("x", "0" * 20, "9" * 5000, "-1", "1.0"):
        problem(api.get(f"/v1/galleries/none/entries/{entry}"), 404, "not-found")
    problem(api.get("/v1/galleries/none/entries/0"), 422, "invalid-request")


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/healthz", "/metrics", "/v1/model", "/v1/galleries"])
def test_head_says_what_get_says_without_a_body(api: httpx.Client, path: str) -> None:
    said, asked = api.get(path), api.head(path)
    assert (asked.status_code, asked.content) == (said.status_code, b"")
    for name in ("content-type", "content-length", "location", "cache-control"):
        assert path == "/metrics" or asked.headers.get(name) == said.headers.get(name), name
    assert asked.headers["x-request-id"]


def test_head_of_what_is_not_there_is_a_problem_and_is_counted_as_head(api: httpx.Client, gallery: str) -> None:
    assert api.head("/v1/galleries/none").status_code == 404
    assert api.head(f"/v1/galleries/{gallery}/search").status_code == 405
    assert api.head(f"/v1/galleries/{gallery}").status_code == 200
    text = api.get("/metrics").text
    assert re.search(r'pan_requests_total{method="HEAD",route="/v1/galleries/{gallery}",status="200"}', text)


def test_the_address_alone_leads_to_the_documentation(api: httpx.Client) -> None:
    answer = api.get("/", follow_redirects=True)
    assert (answer.status_code, answer.url.path) == (200, "/docs")


def test_a_compressed_body_is_refused_in_words(api: httpx.Client, gallery: str) -> None:
    body = gzip.compress(b'{"name": "packed"}')
    kinds = {
        "": "application/json",
        f"/{gallery}/entries/stream": "application/x-ndjson",
        f"/{gallery}/import": "application/octet-stream",
        f"/{gallery}/search": "application/json",
    }
    for path, kind in kinds.items():
        headers = {"content-type": kind, "content-encoding": "gzip"}
        answer = api.post(f"/v1/galleries{path}", content=body, headers=headers)
        problem(answer, 415, "unsupported-body")
        assert "gzip: send the body without compression" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"", "application/json", 422, "invalid-request"),
        (b"{", "application/json", 422, "invalid-request"),
        (b"[]", "application/json", 422, "invalid-request"),
        (b'{"images": "x"}', "application/json", 422, "invalid-request"),
        (b'{"images": [7]}', "application/json", 422, "invalid-request"),
        (b'{"images": []}', "application/json", 422, "invalid-request"),
        (b"[" * 100_000, "application/json", 422, "invalid-request"),
        (b"\xff\xfe", "application/json", 422, "invalid-request"),
        (b"x", "text/plain", 415, "unsupported-body"),
        (b"x", "", 415, "unsupported-body"),
        (b"x", "multipart/form-data", 422, "invalid-request"),
        (b"x", MULTIPART, 422, "invalid-request"),
        (b"--b--\r\n", MULTIPART, 422, "invalid-request"),
        (b"--b\r\n\r\nx\r\n--b--\r\n", MULTIPART, 422, "invalid-request"),
        (PART + b'name="images"; filename="a"\r\n\r\nxxx', MULTIPART, 422, "invalid-request"),
        (PART + b'name="x"\r\n\r\n\xff\r\n--b--\r\n', MULTIPART, 422, "invalid-request"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(
    api: httpx.Client, body: bytes, kind: str, status: int, code: str
) -> None:
    problem(api.post("/v1/embeddings", content=body, headers={"content-type": kind}), status, code)


def test_unknown_options_are_refused_wherever_they_stand(api: httpx.Client, gallery: str) -> None:
    path = f"/v1/galleries/{gallery}/search"
    problem(api.post("/v1/embeddings?encodings=base64", files=files(png(1))), 422, "invalid-request")
    problem(api.post(path, files=files(png(1)), data={"topk": "3"}), 422, "invalid-request")
    problem(api.post(path, json={"images": [b64(png(1))], "topk": 3}), 422, "invalid-request")
    problem(api.post(f"{path}?topk=3", content=png(1), headers={"content-type": "image/png"}), 422, "invalid-request")
    problem(api.post(f"/v1/galleries/{gallery}/entries", json={"entries": [], "entry": 1}), 422, "invalid-request")


def test_every_answer_carries_a_request_id_and_a_callers_own_is_kept(api: httpx.Client) -> None:
    assert api.get("/healthz").headers["x-request-id"] != api.get("/healthz").headers["x-request-id"]
    assert api.get("/nowhere", headers={"x-request-id": "trace-7"}).headers["x-request-id"] == "trace-7"
    forged = api.get("/healthz", headers={"x-request-id": "a b\tc"}).headers["x-request-id"]
    assert forged != "a b\tc"
    assert api.get("/healthz").headers["x-content-type-options"] == "nosniff"


# -- the service itself


def test_the_model_is_described(api: httpx.Client) -> None:
    model = schemas.Model.model_validate_json(api.get("/v1/model").content)
    assert (model.dim, model.input_height, model.input_width, model.device) == (DIM, HEIGHT, WIDTH, "cpu")
    assert (model.engine, model.precision, model.file, model.max_batch) == ("onnxruntime", "float32", "model.onnx", 32)
    assert model.reason.startswith("onnxruntime on cpu, float32, selected by auto")
    assert model.parity.cosine_min >= model.parity.gate_cosine_min


def test_it_is_alive_and_ready(api: httpx.Client) -> None:
    assert api.get("/healthz").json() == {"status": "ok"}
    assert api.get("/readyz").json() == {"status": "ok", "failing": [], "set_aside": 0, "galleries_set_aside": 0}


def test_metrics_count_requests_by_template_and_never_by_name(api: httpx.Client, gallery: str) -> None:
    enrol(api, gallery, {"image": b64(png(1)), "person_id": "secret-person"})
    api.delete(f"/v1/galleries/{gallery}/persons", params={"person_id": "secret-person"})
    api.post("/v1/embeddings", files=files(b"bad"))
    api.request("BREW", "/coffee/secret-person")
    text = api.get("/metrics").text
    assert 'pan_requests_total{method="POST",route="/v1/galleries/{gallery}/entries",status="201"}' in text
    assert 'pan_images_rejected_total{code="unsupported-image"}' in text
    assert f'pan_gallery_entries{{gallery="{gallery}"}} 0.0' in text
    assert "secret-person" not in text
    assert "BREW" not in text


def test_the_openapi_document_describes_every_call_its_bodies_and_its_errors(api: httpx.Client) -> None:
    document = api.get("/openapi.json").json()
    calls = {(method, path): call for path, item in document["paths"].items() for method, call in item.items()}
    assert ("post", "/v1/galleries/{gallery}/search") in calls
    assert len(calls) == 27
    for (method, path), call in calls.items():
        assert call["summary"], path
        assert "500" in call["responses"], path
        if "{gallery}" in path:
            assert "404" in call["responses"], path
        if method in {"post", "patch"} and not path.endswith(("/purge", "/export", "/import", "/re-embed", "/stream")):
            assert "application/json" in call["requestBody"]["content"], path
    text = orjson.dumps(document).decode()
    for reference in {part.split('"')[0] for part in text.split('"$ref":"#/components/schemas/')[1:]}:
        assert reference in document["components"]["schemas"], reference
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_document_that_is_checked_in_is_the_one_that_is_served(api: httpx.Client) -> None:
    path = Path(__file__).parents[3] / "docs" / "openapi.json"
    written, served = json.loads(path.read_text()), api.get("/openapi.json").json()
    assert written == served, "the API has changed; run: pan-serve openapi > docs/openapi.json"
    assert pan_serve("openapi").stdout == path.read_text()


def test_a_form_field_that_was_left_empty_says_nothing(api: httpx.Client, gallery: str) -> None:
    enrol(api, gallery, {"image": b64(png(1)), "person_id": "a"})
    form = {"top_k": "5", "cameras": "", "camera_id": "", "person_id": "", "group_by": "", "exclude_cameras": ""}
    answer = api.post(f"/v1/galleries/{gallery}/search", files=files(png(1)), data=form)
    assert [hit["person_id"] for hit in answer.json()["hits"]] == ["a"]


def test_the_page_of_the_api_asks_nothing_of_other_hosts(api: httpx.Client) -> None:
    page = api.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "://" not in page.text
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    parts = {address: api.get(f"/{address}") for address in addresses if not address.startswith("data:")}
    assert [part.status_code for part in parts.values()] == [200, 200, 200]
    assert "SwaggerUIBundle" in parts["docs/swagger-ui-bundle.js"].text
    assert "://" not in parts["docs/start.js"].text


def test_answers_are_kept_by_no_cache_shown_in_no_frame_and_run_nothing(api: httpx.Client) -> None:
    for path in ("/v1/galleries", "/v1/model", "/nowhere", "/docs", "/openapi.json"):
        headers = api.get(path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers.get_list("content-security-policy")[1:] == []
        assert headers["referrer-policy"] == "no-referrer"
