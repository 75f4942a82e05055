"""Enrolment by stream: results while lines come, each line on its own, and nothing twice under one key."""

import base64
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.common.served import Served
from bundle import ImageLimits
from pan_reid import Client
from service.api.parsing.line_buffer import LineBuffer
from service.core.settings import Settings
from service.galleries.enrolment_results import Batch, EnrolledRange, Failure
from tests.support.bundles import DIM
from tests.support.pictures import encode, png
from tests.support.servers import running

_TYPE = {"Content-Type": "application/x-ndjson"}


def vector(n: int) -> str:
    return base64.b64encode(np.random.default_rng(n).normal(size=DIM).astype("<f4").tobytes()).decode()


def ready(n: int) -> bytes:
    return json.dumps({"vector": vector(n), "person_id": f"p{n}"}).encode()


def picture(n: int) -> bytes:
    return json.dumps({"image": base64.b64encode(png(n)).decode(), "person_id": f"p{n}"}).encode()


def post(api: httpx.Client, gallery: str, lines: Iterable[bytes], **headers: str) -> list[dict[str, Any]]:
    body = (line + b"\n" for line in lines)
    answer = api.post(f"/v1/galleries/{gallery}/entries/stream", content=body, headers=_TYPE | headers)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/x-ndjson"), answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def persons(api: httpx.Client, gallery: str) -> dict[int, str]:
    with Client(str(api.base_url)) as client:
        return {entry.entry_id: entry.person_id or "" for entry in client.entries(gallery)}


class Wire:
    """A stream by hand: chunks go out and lines come in at the same time."""

    def __init__(self, url: str, gallery: str, key: str | None = None) -> None:
        where = urlsplit(url)
        self._socket = socket.create_connection((where.hostname, where.port), timeout=60)
        path = f"/v1/galleries/{gallery}/entries/stream"
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        head += f"Idempotency-Key: {key}\r\n" if key else ""
        self._socket.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        self._answer = self._socket.makefile("rb")
        self._begun = False

    def send(self, data: bytes) -> None:
        self._socket.sendall(b"%x\r\n%s\r\n" % (len(data), data))

    def line(self) -> dict[str, Any]:
        if not self._begun:
            assert b" 200 " in self._answer.readline()
            while self._answer.readline().strip():
                pass
            self._begun = True
            self._rest = b""
        while b"\n" not in self._rest:
            size = int(self._answer.readline(), 16)
            self._rest += self._answer.read(size)
            self._answer.readline()
        line, _, self._rest = self._rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        self._answer.close()
        self._socket.close()


@contextmanager
def wire(url: str, gallery: str, key: str | None = None) -> Iterator[Wire]:
    stream = Wire(url, gallery, key)
    try:
        yield stream
    finally:
        stream.close()


def test_each_line_has_its_result_in_order_and_a_bad_one_fails_alone(api: httpx.Client, gallery: str) -> None:
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


def test_pictures_are_embedded_and_those_that_cannot_be_fail_alone(api: httpx.Client, gallery: str) -> None:
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


def test_results_come_while_the_stream_is_open_and_stay_when_it_breaks_off(
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
        stream.send(ready(99))  # without its newline: it never was a line
    while not any(record.__dict__.get("route", "").endswith("/stream") for record in caplog.records):
        time.sleep(0.01)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert sorted(persons(api, gallery).values()) == ["p0", "p1", "p10", "p11", "p12", "p2"]


def test_a_last_line_needs_no_newline(api: httpx.Client, gallery: str) -> None:
    path = f"/v1/galleries/{gallery}/entries/stream"
    answer = api.post(path, content=ready(1) + b"\n" + ready(2), headers=_TYPE)
    assert json.loads(answer.text.splitlines()[-1]) == {"enrolled": 2, "failed": 0}
    assert json.loads(api.post(path, content=b"", headers=_TYPE).text) == {"enrolled": 0, "failed": 0}


def test_what_is_wrong_with_all_of_it_is_a_problem(api: httpx.Client, gallery: str) -> None:
    path = f"/v1/galleries/{gallery}/entries/stream"
    wrong = api.post(path, content=ready(1), headers={"Content-Type": "application/json"})
    assert (wrong.status_code, wrong.json()["code"]) == (415, "unsupported-body")
    missing = api.post("/v1/galleries/nowhere/entries/stream", content=ready(1), headers=_TYPE)
    assert (missing.status_code, missing.json()["code"]) == (404, "not-found")


def test_a_stream_sent_again_enrols_nothing_twice_also_after_a_crash(launch: Callable[..., Served]) -> None:
    server, lines = launch(), [b"no JSON" if n % 700 == 0 else ready(n) for n in range(3000)]
    with Client(server.url) as client:
        client.create_gallery("hall")
    seen: list[dict[str, Any]] = []
    with wire(server.url, "hall", "k1") as stream:

        def send() -> None:
            with suppress(OSError):  # the server dies while it reads
                stream.send(b"".join(line + b"\n" for line in lines[:2500]))

        sending = threading.Thread(target=send)
        sending.start()
        while len(seen) < 1200:
            seen.append(stream.line())
        server.stop(signal.SIGKILL)
        sending.join()
    server = launch()
    with httpx.Client(base_url=server.url, timeout=60) as api:
        *results, end = post(api, "hall", lines, **{"Idempotency-Key": "k1"})
        assert results[:1200] == seen
        assert end == {"enrolled": 2995, "failed": 5}
        held = persons(api, "hall")
        assert sorted(held.values()) == sorted(f"p{n}" for n in range(3000) if n % 700)
        assert all(held[result["entry_id"]] == f"p{result['index']}" for result in results if "entry_id" in result)
        assert post(api, "hall", lines, **{"Idempotency-Key": "k1"}) == [*results, end]
        assert len(persons(api, "hall")) == 2995
        changed = api.post(
            "/v1/galleries/hall/entries/stream", content=ready(5), headers=_TYPE | {"Idempotency-Key": "k1"}
        )
        assert (changed.status_code, "use a new key" in changed.json()["detail"]) == (422, True)
        *kept, broken = post(api, "hall", [*lines[:2800], ready(9999)], **{"Idempotency-Key": "k1"})
        assert kept == results[: len(kept)]
        assert broken["error"]["code"] == "invalid-request"
        assert len(persons(api, "hall")) == 2995


def test_two_streams_with_one_key_at_a_time_enrol_each_line_once(api: httpx.Client, gallery: str) -> None:
    lines = [ready(n) for n in range(2000)]
    answers: list[list[dict[str, Any]]] = [[], []]

    def send(place: int) -> None:
        with httpx.Client(base_url=api.base_url, timeout=60) as own:
            answers[place] = post(own, gallery, lines, **{"Idempotency-Key": "both"})

    threads = [threading.Thread(target=send, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers[0] == answers[1]
    assert answers[0][-1] == {"enrolled": 2000, "failed": 0}
    assert sorted(persons(api, gallery).values()) == sorted(f"p{n}" for n in range(2000))


def test_a_line_that_is_too_long_is_dropped_as_it_arrives(bundle: Path, tmp_path: Path) -> None:
    with running(Settings(bundle=bundle, data=tmp_path, images=ImageLimits(max_bytes=30_000))) as api:
        api.post("/v1/galleries", json={"name": "hall"})
        *results, end = post(api, "hall", [ready(0), b"x" * 3_000_000, ready(1), b"y" * 200_000])
    assert end == {"enrolled": 2, "failed": 2}
    assert [result.get("error", {}).get("code") for result in results] == [None, "too-large", None, "too-large"]
    assert "more than 105,536 bytes" in results[1]["error"]["detail"]


def test_room_for_bodies_is_waited_for(bundle: Path, tmp_path: Path) -> None:
    with running(Settings(bundle=bundle, data=tmp_path, max_body=300_000, max_bodies=300_000)) as api:
        api.post("/v1/galleries", json={"name": "hall"})
        with socket.create_connection((api.base_url.host, api.base_url.port or 0)) as slow:
            slow.sendall(b"POST /v1/galleries/hall/entries HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\n")
            slow.sendall(b"Content-Type: application/json\r\n\r\n" + bytes(290_000))
            while "pan_body_bytes 290000.0" not in api.get("/metrics").text:
                time.sleep(0.01)
            ends: list[dict[str, Any]] = []
            lines = [ready(n) for n in range(1000)]
            stream = threading.Thread(target=lambda: ends.append(post(api, "hall", lines)[-1]))
            stream.start()
            time.sleep(0.2)
            assert not ends
        stream.join()
    assert ends == [{"enrolled": 1000, "failed": 0}]


def test_a_full_queue_is_waited_for(launch: Callable[..., Served]) -> None:
    server = launch("--max-queue", "4", "--max-images", "4")
    slow = encode(Image.new("RGB", (2000, 2000)))  # to decode
    files = [("images", (str(n), slow)) for n in range(4)]
    enrolled = threading.Event()

    def fill() -> None:
        while not enrolled.is_set():
            httpx.post(f"{server.url}/v1/embeddings", files=files, timeout=60)

    with httpx.Client(base_url=server.url, timeout=60) as api:
        api.post("/v1/galleries", json={"name": "hall"})
        filling = threading.Thread(target=fill)
        filling.start()
        while "pan_images_admitted 4.0" not in api.get("/metrics").text:
            time.sleep(0.01)
        assert post(api, "hall", [picture(n) for n in range(6)])[-1] == {"enrolled": 6, "failed": 0}
        enrolled.set()
        filling.join()


def test_a_stream_never_goes_on_into_another_gallery_of_the_same_name(api: httpx.Client, gallery: str) -> None:
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


def test_any_beginning_of_a_stream_is_answered_as_before(api: httpx.Client, gallery: str) -> None:
    lines = [b"no JSON" if n in (2, 7) else ready(n) for n in range(12)]
    key = {"Idempotency-Key": "k"}
    *results, _ = post(api, gallery, [b"\n".join(lines[:10])], **key)  # in one batch
    for count in range(11):
        *again, end = post(api, gallery, lines[:count], **key)
        assert again == results[:count]
        assert end == {
            "enrolled": sum("entry_id" in one for one in again),
            "failed": sum("error" in one for one in again),
        }
    with wire(str(api.base_url), gallery, "k") as stream:  # by one that waits for each result
        for n, line in enumerate(lines[:10]):
            stream.send(line + b"\n")
            assert stream.line() == results[n]
    *begun, broken = post(api, gallery, [*lines[:4], ready(99)], **key)
    assert begun == results[:4]
    assert (broken["error"]["code"], broken["enrolled"]) == ("invalid-request", 3)
    assert "line 5 differs from the line that was sent with this Idempotency-Key before" in broken["error"]["detail"]
    assert len(persons(api, gallery)) == 8
    *whole, end = post(api, gallery, lines, **key)
    assert (whole[:10], end) == (results, {"enrolled": 10, "failed": 2})
    assert len(persons(api, gallery)) == 10


def test_what_a_former_version_kept_of_a_key_is_answered() -> None:
    answer = {"enrolled": 2, "failed": 1, "results": [{"index": 0, "error": {"code": "c", "detail": "d"}}]}
    answer["results"] += [{"index": 1, "entry_id": 7}, {"index": 2, "entry_id": 8}]  # type: ignore[operator]
    stream = json.dumps([3, "f" * 64, 7, [[0, {"code": "c", "detail": "d"}]]])
    for kept in (json.dumps(answer), stream):
        failed, enrolled = Batch.loads(kept.encode()).outcomes(0, 3)
        assert failed == Failure(0, {"code": "c", "detail": "d"})
        assert enrolled == EnrolledRange(1, 7, 2)
    batch = Batch(3, {0: {"code": "c", "detail": "d"}}, b"8 bytes." * 3, 7)
    assert Batch.loads(batch.dumps()) == batch


def test_who_sends_no_line_in_time_is_told_and_what_came_before_stays(bundle: Path, tmp_path: Path) -> None:
    with running(Settings(bundle=bundle, data=tmp_path, request_timeout=0.5)) as api:
        api.post("/v1/galleries", json={"name": "hall"})
        with wire(str(api.base_url), "hall") as stream:
            stream.send(ready(1) + b"\n" + ready(2)[:5])
            assert "entry_id" in stream.line()
            dripping = threading.Event()

            def drip() -> None:
                with suppress(OSError):
                    while not dripping.wait(0.05):
                        stream.send(b" ")

            thread = threading.Thread(target=drip)
            thread.start()
            end = stream.line()
            dripping.set()
            thread.join()
        assert (end["enrolled"], end["error"]["code"]) == (1, "deadline-exceeded")
        assert "no line arrived within 0.5 s" in end["error"]["detail"]
        assert list(persons(api, "hall").values()) == ["p1"]


def test_streams_have_places_of_their_own(bundle: Path, tmp_path: Path) -> None:
    with running(Settings(bundle=bundle, data=tmp_path, max_queue=2, max_images=2)) as api:
        api.post("/v1/galleries", json={"name": "hall"})
        with wire(str(api.base_url), "hall") as stream:
            stream.send(ready(1) + b"\n")
            assert "entry_id" in stream.line()
            path, body = "/v1/galleries/hall/entries", {"entries": [{"vector": vector(2)}]}
            refused = api.post(f"{path}/stream", content=ready(2), headers=_TYPE)
            assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
            assert int(refused.headers["Retry-After"]) >= 1
            refused = api.post(
                "/v1/galleries/new/import", content=b"", headers={"Content-Type": "application/octet-stream"}
            )
            assert refused.status_code == 429
            assert [api.post(path, json=body).status_code for _ in range(3)] == [201] * 3
        while "pan_streams_admitted 0.0" not in api.get("/metrics").text:
            time.sleep(0.01)
        assert post(api, "hall", [ready(3)])[-1] == {"enrolled": 1, "failed": 0}


def test_a_line_of_too_many_values_fails_alone(api: httpx.Client, gallery: str) -> None:
    many = b'{"vector": [%s]}' % b",".join([b"{}"] * 100_000)
    *results, end = post(api, gallery, [ready(1), many, ready(2)])
    assert end == {"enrolled": 2, "failed": 1}
    assert results[1]["error"]["code"] == "too-large"


@settings(max_examples=30, deadline=None)
@given(
    body=st.binary(max_size=200).map(lambda data: data.replace(b"\0", b"\n")),
    cuts=st.lists(st.integers(0, 200), max_size=8),
    longest=st.integers(1, 40),
)
def test_lines_are_the_same_however_the_body_is_cut(body: bytes, cuts: list[int], longest: int) -> None:
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    chunks = [body[a:b] for a, b in pairwise(places)]
    expected = [line if len(line) <= longest else None for line in body.split(b"\n")]
    if expected[-1] == b"":
        expected.pop()

    buffer = LineBuffer(longest)
    found: list[bytes | None] = []
    dropped = 0
    for chunk in [*chunks, None]:
        dropped += -buffer.end() if chunk is None else buffer.feed(chunk)
        while (some := buffer.take(3))[0]:
            found += some[0]
            dropped += some[1]
    assert found == expected
    kept = sum(1 if line is None else len(line) + 1 for line in found)
    assert kept + dropped == len(body)
