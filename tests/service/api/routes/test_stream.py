"""Enrolment by stream: a result for each line while the stream is open."""

import base64
import json
import time

import httpx
import numpy as np
import pytest

from pan_reid import Client
from tests.service.api.routes.streams import NDJSON, persons, picture, post, ready, vector, wire
from tests.support.bundles import DIM
from tests.support.pictures import png


def test_each_line_gets_its_result_in_order_and_an_invalid_line_fails_alone(api: httpx.Client, gallery: str) -> None:
    bad = {
        7: (b"{", "not JSON"),
        8: (b"", "not JSON"),
        9: (b"[1]", "a JSON list"),
        1500: (b'{"person_id": "a"}', "either an `image` or a `vector`"),
        1501: (json.dumps({"vector": [0.0] * DIM}).encode(), "it is zero"),
        1502: (json.dumps({"vector": vector(0), "age": 5}).encode(), "age: it is not known"),
        2499: (json.dumps({"image": "AAAA"}).encode(), "are not a JPEG"),
    }
    *results, end = post(api, gallery, (bad[n][0] if n in bad else ready(n) for n in range(2500)))
    assert end == {"enrolled": 2493, "failed": 7}
    assert [result["index"] for result in results] == list(range(2500))
    assert {result["index"] for result in results if "error" in result} == set(bad)
    for n, (_, why) in bad.items():
        assert why.lower() in results[n]["error"]["detail"].lower(), results[n]
    held = persons(api, gallery)
    assert len(held) == 2493
    assert all(held[result["entry_id"]] == f"p{result['index']}" for result in results if "entry_id" in result)
    with Client(str(api.base_url)) as client:
        for n in (0, 1499, 2498):
            query = np.frombuffer(base64.b64decode(vector(n)), np.float32)
            assert (client.search_vector(gallery, query, top_k=1).hits or [])[0].person_id == f"p{n}"


def test_images_are_embedded_and_unusable_ones_fail_alone(api: httpx.Client, gallery: str) -> None:
    broken = json.dumps({"image": base64.b64encode(png(1)[:200]).decode()}).encode()
    lines = [broken if n % 50 == 3 else ready(n) if n % 3 == 0 else picture(n) for n in range(150)]
    *results, end = post(api, gallery, lines)
    assert end == {"enrolled": 147, "failed": 3}
    assert {r["index"]: r["error"]["code"] for r in results if "error" in r} == dict.fromkeys(
        (3, 53, 103), "corrupt-image"
    )
    held = persons(api, gallery)
    assert all(held[result["entry_id"]] == f"p{result['index']}" for result in results if "entry_id" in result)
    with Client(str(api.base_url)) as client:
        assert (client.search(gallery, png(149, 1), top_k=1).hits or [])[0].person_id == "p149"


def test_results_arrive_while_the_stream_is_open_and_their_entries_stay_after_a_disconnect(
    api: httpx.Client, gallery: str, caplog: pytest.LogCaptureFixture
) -> None:
    with wire(str(api.base_url), gallery) as stream:
        for n in range(3):
            stream.send(ready(n) + b"\n" + ready(n + 10)[:20])
            first = stream.line()
            assert (first["index"], persons(api, gallery)[first["entry_id"]]) == (2 * n, f"p{n}")
            stream.send(ready(n + 10)[20:] + b"\n")
            assert stream.line()["index"] == 2 * n + 1
        caplog.set_level("INFO")
        stream.send(ready(99))  # without its newline it is not a line
    while not any(record.__dict__.get("route", "").endswith("/stream") for record in caplog.records):
        time.sleep(0.01)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert sorted(persons(api, gallery).values()) == ["p0", "p1", "p10", "p11", "p12", "p2"]


def test_a_last_line_needs_no_newline(api: httpx.Client, gallery: str) -> None:
    path = f"/v1/galleries/{gallery}/entries/stream"
    answer = api.post(path, content=ready(1) + b"\n" + ready(2), headers=NDJSON)
    assert json.loads(answer.text.splitlines()[-1]) == {"enrolled": 2, "failed": 0}
    assert json.loads(api.post(path, content=b"", headers=NDJSON).text) == {"enrolled": 0, "failed": 0}


def test_an_invalid_stream_is_a_problem_document(api: httpx.Client, gallery: str) -> None:
    path = f"/v1/galleries/{gallery}/entries/stream"
    wrong = api.post(path, content=ready(1), headers={"Content-Type": "application/json"})
    assert (wrong.status_code, wrong.json()["code"]) == (415, "unsupported-body")
    missing = api.post("/v1/galleries/nowhere/entries/stream", content=ready(1), headers=NDJSON)
    assert (missing.status_code, missing.json()["code"]) == (404, "not-found")


def test_a_stream_does_not_continue_in_a_new_gallery_of_the_same_name(api: httpx.Client, gallery: str) -> None:
    with wire(str(api.base_url), gallery, "k") as stream:
        stream.send(ready(1) + b"\n")
        assert "entry_id" in stream.line()
        assert api.delete(f"/v1/galleries/{gallery}").status_code == 200
        assert api.post("/v1/galleries", json={"name": gallery}).status_code == 201
        stream.send(ready(2) + b"\n")
        end = stream.line()
        assert (end["enrolled"], end["failed"], end["error"]["code"]) == (1, 0, "not-found")
        assert "deleted meanwhile" in end["error"]["detail"]
    assert persons(api, gallery) == {}
