"""Too many requests, images or bytes at a time: refused with 429, and accepted again afterwards."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from bundle import ImageArray
from pan_reid import Client
from pan_reid.cli.enrol_folder import enrol_crops
from pan_reid.cli.folder import find_crops
from service.core.settings import Settings
from service.core.types import Vectors
from service.index.gallery_index import GalleryIndex
from service.inference.engine import Engine
from tests.service.api.calls import send
from tests.support.pictures import png, write_market
from tests.support.servers import running


def metric(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


def test_a_full_queue_gives_429_and_a_disconnect_frees_its_places(
    small: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    embed = Engine.embed

    def gated(engine: Engine, crops: ImageArray) -> Vectors:
        gate.wait(30)
        return embed(engine, crops)

    monkeypatch.setattr(Engine, "embed", gated)
    body = httpx.Request("POST", "http://x/", files=[("images", ("x", png(n))) for n in range(3)])
    data = body.read()
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: {body.headers['content-type']}\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    ).encode()
    with socket.create_connection((small.base_url.host, small.base_url.port), timeout=10) as connection:
        connection.sendall(head + data)
        while metric(small, "pan_images_admitted") != 3:
            time.sleep(0.01)
        refused = send(small, png(1), png(2))
        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
    while metric(small, "pan_images_admitted"):  # although the engine has not answered
        time.sleep(0.01)
    gate.set()
    assert send(small, png(1), png(2)).status_code == 200


@pytest.mark.parametrize("call", ["embeddings", "explain", "compare", "galleries/any/search", "galleries/any/entries"])
@pytest.mark.parametrize("kind", ["image/png", "application/json"])
def test_an_overloaded_service_refuses_requests_before_their_body(small: httpx.Client, call: str, kind: str) -> None:
    where = (small.base_url.host, small.base_url.port)

    def head(call: str, kind: str) -> bytes:
        lines = ("Host: localhost", f"Content-Type: {kind}", "Content-Length: 50000", "", "")
        return f"POST /v1/{call} HTTP/1.1\r\n".encode() + "\r\n".join(lines).encode()

    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(socket.create_connection(where, timeout=10)).sendall(head("embeddings", "image/png"))
        while metric(small, "pan_requests_admitted") != 4:
            time.sleep(0.01)
        with socket.create_connection(where, timeout=10) as connection:
            connection.sendall(head(call, kind))
            answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nretry-after: 1\r\n" in answer
        assert small.get("/v1/model").status_code == 200
        for page in ("galleries/any/entries", "galleries/any/persons", "audit"):
            assert small.get(f"/v1/{page}").status_code == 429, page
    while metric(small, "pan_requests_admitted"):
        time.sleep(0.01)
    assert send(small, png(1)).status_code == 200


def test_a_body_that_does_not_arrive_gives_504_and_frees_its_place(bundle: Path, tmp_path: Path) -> None:
    settings = Settings(bundle=bundle, data=tmp_path, max_queue=1, max_images=1, request_timeout=0.3)
    with running(settings) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port), timeout=10) as connection:
            connection.sendall(
                b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
                b"Content-Length: 50000\r\n\r\nbegun"
            )
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert b"did not arrive within 0.3 s" in answer
        assert send(client, png(1)).status_code == 200


def test_searches_are_limited_cancelled_at_the_deadline_and_dropped_on_disconnect(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, ran = threading.Event(), []
    search = GalleryIndex.search

    def gated(*arguments: Any) -> Any:
        ran.append(arguments)
        gate.wait(30)
        return search(*arguments)

    monkeypatch.setattr(GalleryIndex, "search", gated)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # one search thread
    settings = Settings(bundle=bundle, data=tmp_path, max_queue=2, max_images=1, request_timeout=1.0)
    with running(settings) as client, ThreadPoolExecutor() as threads:
        client.post("/v1/galleries", json={"name": "few"})
        client.post("/v1/galleries/few/entries", json={"entries": [{"vector": [1.0] * 64}]})
        query = json.dumps({"vector": [1.0] * 64})

        def ask() -> httpx.Response:
            headers = {"Content-Type": "application/json"}
            return client.post("/v1/galleries/few/search", content=query, headers=headers)

        first = threads.submit(ask)
        while not ran:
            time.sleep(0.01)
        with socket.create_connection((client.base_url.host, client.base_url.port), timeout=10) as connection:
            head = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(query)}\r\n\r\n"
            connection.sendall(f"POST /v1/galleries/few/search HTTP/1.1\r\n{head}{query}".encode())
            while metric(client, "pan_requests_admitted") != 2:
                time.sleep(0.01)
            refused = ask()
            assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
            assert refused.headers["retry-after"] == "1"
        late = first.result()
        assert (late.status_code, late.json()["code"]) == (504, "deadline-exceeded")
        while metric(client, "pan_requests_admitted"):
            time.sleep(0.01)
        gate.set()
        assert [hit["entry_id"] for hit in ask().json()["hits"]] == [1]
        assert len(ran) == 2


def test_the_client_retries_on_429_and_enrols_each_crop_once(small: httpx.Client, tmp_path: Path) -> None:
    folder = write_market(tmp_path / "market", persons=5, cameras=2)
    before = small.get("/metrics").text.count('status="429"')
    with Client(str(small.base_url)) as client:
        failures = enrol_crops(
            client, find_crops(folder), "patient", {}, batch=3, in_flight=4, console=Console(quiet=True)
        )
        files = [entry.attributes["file"] for entry in client.entries("patient")]
    assert failures == []
    assert sorted(files) == sorted(path.name for path in folder.iterdir() if not path.name.startswith("-1"))
    assert small.get("/metrics").text.count('status="429"') > before


def _until(reached: Callable[[], bool]) -> None:
    """Wait for a condition, at most half a minute."""
    end = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_bodies_over_the_common_budget_are_refused_until_one_is_released(small: httpx.Client) -> None:
    head = (
        b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 199999\r\n\r\n"
    )
    large = {"images": [], "nothing": "A" * 150_000}

    def status() -> int:
        return small.post("/v1/embeddings", json=large).status_code

    assert status() == 422  # within the budget, but without an image
    with socket.create_connection((small.base_url.host, small.base_url.port), timeout=10) as connection:
        connection.sendall(head + b" " * 199_000)
        _until(lambda: metric(small, "pan_body_bytes") == 199_000)
        refused = small.post("/v1/embeddings", json=large)
        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert small.get("/v1/model").status_code == 200
    _until(lambda: status() == 422)
