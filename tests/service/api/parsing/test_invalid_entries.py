"""Entries and vectors that cannot be used: each fails alone, and its error names the problem."""

import json
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from tests.service.api.calls import b64, enrol, ids, problem
from tests.support.bundles import DIM
from tests.support.pictures import png


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
def test_an_invalid_entry_fails_alone_and_its_error_names_the_problem(
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
def test_an_invalid_vector_is_refused(api: httpx.Client, gallery: str, vector: object) -> None:
    problem(enrol(api, gallery, {"vector": vector}), 422, "invalid-request")
    problem(api.post(f"/v1/galleries/{gallery}/search", json={"vector": vector}), 422, "invalid-request")
    line = {"content": json.dumps({"vector": vector}), "headers": {"Content-Type": "application/x-ndjson"}}
    streamed = api.post(f"/v1/galleries/{gallery}/entries/stream", **line).text.splitlines()
    assert orjson.loads(streamed[0])["error"]["code"] == "invalid-request"
    assert api.get(f"/v1/galleries/{gallery}").json()["entries"] == 0


@pytest.mark.parametrize("scale", [1e38, 3.4e38, 1e-30, 2e-38])
def test_a_vector_of_any_norm_in_float32_is_normalised(api: httpx.Client, gallery: str, scale: float) -> None:
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


@pytest.mark.parametrize("vector", [[0.0] * DIM, [1.0], "AAAA", "no base64!", {}, None])
def test_a_malformed_vector_fails_alone(api: httpx.Client, gallery: str, vector: Any) -> None:
    answer = enrol(api, gallery, {"vector": vector}, {"vector": [1.0] * DIM, "person_id": "a"})
    assert answer.status_code == 207
    assert answer.json()["results"][0]["error"]["code"] == "invalid-request"
    assert len(ids(answer)) == 1
