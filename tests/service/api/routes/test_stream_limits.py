"""Limits of streams: long lines, memory, a full queue, time, places."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from benchmarks.common.served import Served
from bundle import ImageLimits
from service.core.settings import Settings
from tests.service.api.routes.streams import NDJSON, persons, picture, post, ready, vector, wire
from tests.support.pictures import encode
from tests.support.servers import running


def test_a_line_that_is_too_long_is_dropped_while_it_arrives(bundle: Path, tmp_path: Path) -> None:
    with running(Settings(bundle=bundle, data=tmp_path, images=ImageLimits(max_bytes=30_000))) as api:
        api.post("/v1/galleries", json={"name": "hall"})
        *results, end = post(api, "hall", [ready(0), b"x" * 3_000_000, ready(1), b"y" * 200_000])
    assert end == {"enrolled": 2, "failed": 2}
    assert [result.get("error", {}).get("code") for result in results] == [None, "too-large", None, "too-large"]
    assert "more than 105,536 bytes" in results[1]["error"]["detail"]


def test_a_stream_waits_for_the_body_budget(bundle: Path, tmp_path: Path) -> None:
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


def test_a_stream_waits_while_the_queue_is_full(launch: Callable[..., Served]) -> None:
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


def test_a_stream_without_a_line_in_time_ends_and_its_entries_stay(bundle: Path, tmp_path: Path) -> None:
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


def test_streams_have_a_limit_of_their_own(bundle: Path, tmp_path: Path) -> None:
    with running(Settings(bundle=bundle, data=tmp_path, max_queue=2, max_images=2)) as api:
        api.post("/v1/galleries", json={"name": "hall"})
        with wire(str(api.base_url), "hall") as stream:
            stream.send(ready(1) + b"\n")
            assert "entry_id" in stream.line()
            path, body = "/v1/galleries/hall/entries", {"entries": [{"vector": vector(2)}]}
            refused = api.post(f"{path}/stream", content=ready(2), headers=NDJSON)
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


def test_a_line_with_too_many_values_fails_alone(api: httpx.Client, gallery: str) -> None:
    many = b'{"vector": [%s]}' % b",".join([b"{}"] * 100_000)
    *results, end = post(api, gallery, [ready(1), many, ready(2)])
    assert end == {"enrolled": 2, "failed": 1}
    assert results[1]["error"]["code"] == "too-large"
