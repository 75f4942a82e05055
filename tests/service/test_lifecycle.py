"""The life of a service process: start, stop, kill and restart on one data folder."""

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from benchmarks.common.served import Served
from bundle import PanError
from pan_reid import ApiError, Client, Crop
from pan_reid.schemas import EntryInfo
from service.container import open_service
from service.core.settings import Settings
from tests.support.bundles import write_bundle
from tests.support.pictures import png
from tests.support.servers import pan_serve

Launch = Callable[..., Served]


def test_a_restart_preserves_entries_and_search_results(launch: Launch) -> None:
    server = launch()
    with Client(server.url) as client:
        client.create_gallery("lobby", "a test")
        crops = [
            Crop(
                png(n),
                EntryInfo(
                    person_id=f"p{n}",
                    camera_id=f"c{n % 2}",
                    captured_at=datetime(2024, 5, 1, n, tzinfo=UTC),
                    attributes={"n": n},
                ),
            )
            for n in range(20)
        ]
        assert client.enrol("lobby", crops).enrolled == 20
        client.erase_person("lobby", "p3")
        client.delete_entry("lobby", 5)
        before = list(client.entries("lobby"))
        hits = client.search("lobby", png(7, 1), top_k=100).hits
        some = {"captured_from": datetime(2024, 5, 1, 7, tzinfo=UTC), "attributes": {"n": [6, 7, 8, 9]}}
        seen = client.search("lobby", png(7, 1), **some).hits
        assert {hit.attributes["n"] for hit in seen or []} == {7, 8, 9}
    assert server.stop() == 0
    server = launch()
    with Client(server.url) as client:
        assert list(client.entries("lobby")) == before
        assert len(before) == 18
        assert client.search("lobby", png(7, 1), top_k=100).hits == hits
        assert client.search("lobby", png(7, 1), **some).hits == seen
        assert client.gallery("lobby").purpose == "a test"
        assert client.enrol("lobby", [Crop(png(50))]).results[0].entry_id == 21  # ids are not reused


def test_sigkill_loses_no_acknowledged_entry_and_restores_no_erased_one(launch: Launch) -> None:
    server = launch()
    with Client(server.url) as client:
        client.create_gallery("lobby")
    acknowledged: set[int] = set()
    asked: set[int] = set()  # erasure requested; the kill may lose the last response of each thread
    erased: set[int] = set()
    enough = threading.Event()

    def enrol(thread: int) -> None:
        try:
            with httpx.Client(base_url=f"{server.url}/v1/galleries/lobby", timeout=30) as http:
                for n in range(10_000):
                    vectors = np.random.default_rng((thread, n)).normal(size=(4, 64))
                    entries = [{"vector": vector.tolist(), "person_id": f"t{thread}"} for vector in vectors]
                    made = [
                        result["entry_id"]
                        for result in http.post("/entries", json={"entries": entries}).json()["results"]
                    ]
                    acknowledged.update(made)
                    if n % 3 == 0:
                        asked.add(made[0])
                        assert http.delete(f"/entries/{made[0]}").status_code == 204
                        erased.add(made[0])
                    if len(acknowledged) > 400:
                        enough.set()
        except httpx.TransportError:
            return

    threads = [threading.Thread(target=enrol, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    assert enough.wait(60)
    server.stop(signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert erased
    server = launch()
    with Client(server.url) as client:
        found = {entry.entry_id for entry in client.entries("lobby")}
        assert acknowledged - asked <= found
        assert not erased & found
        # In flight at the kill: at most one request per thread, stored completely or not at all.
        assert len(found - acknowledged) in {0, 4, 8, 12}
        answer = client.search_vector("lobby", np.ones(64, np.float32), top_k=5000)
        assert {hit.entry_id for hit in answer.hits or []} == found


def is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_shutdown_finishes_requests_in_flight(launch: Launch) -> None:
    server = launch()
    with Client(server.url) as client:
        client.create_gallery("lobby")
    where = urlsplit(server.url)
    with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
        head = f"Host: {where.netloc}\r\nContent-Type: image/png\r\nContent-Length: {len(png(1))}\r\n\r\n"
        connection.sendall(f"POST /v1/galleries/lobby/entries HTTP/1.1\r\n{head}".encode() + png(1)[:100])
        with httpx.Client(base_url=server.url) as http:
            while "pan_requests_admitted 1.0" not in http.get("/metrics").text:
                time.sleep(0.02)
        stopped: list[int] = []
        stopping = threading.Thread(target=lambda: stopped.append(server.stop()))
        stopping.start()
        while is_up(server.url):
            time.sleep(0.02)
        connection.sendall(png(1)[100:])
        assert connection.recv(4096).startswith(b"HTTP/1.1 201 ")
    stopping.join()
    assert stopped == [0]
    server = launch()
    with Client(server.url) as client:
        assert client.gallery("lobby").entries == 1


def test_a_gallery_of_another_model_is_searched_with_vectors_of_its_model_only(launch: Launch, tmp_path: Path) -> None:
    server = launch()
    with Client(server.url) as client:
        client.create_gallery("lobby")
        client.enrol("lobby", [Crop(png(1), EntryInfo(person_id="a")), Crop(png(2), EntryInfo(person_id="b"))])
        model, (vector,) = client.model().fingerprint, client.embed([png(2)])
    server.stop()
    other = launch(bundle=write_bundle(tmp_path / "other", seed=1))
    with Client(other.url) as client:
        assert not client.gallery("lobby").searchable
        for refused in (
            lambda: client.search("lobby", png(1)),
            lambda: client.search_vector("lobby", vector),
            lambda: client.search_entry("lobby", 1, false_positive_rate=0.01),
            lambda: client.enrol("lobby", [Crop(png(1))]),
        ):
            with pytest.raises(ApiError, match="start the service with the gallery's bundle") as error:
                refused()
            assert (error.value.status, error.value.problem_code) == (409, "model-mismatch")
        with pytest.raises(ApiError, match="the query is of model"):
            client.search_vector("lobby", vector, fingerprint=client.model().fingerprint)
        by_vector = client.search_vector("lobby", vector, fingerprint=model, top_k=1).hits or []
        assert [(hit.person_id, hit.probability) for hit in by_vector] == [("b", None)]
        assert [hit.person_id for hit in client.search_entry("lobby", 2).hits or []] == ["a"]
        assert client.erase_person("lobby", "a").entries == 1  # erasure must work with any model
        client.create_gallery("new")
        client.enrol("new", [Crop(png(1))])
    other.stop()
    server = launch()
    with Client(server.url) as client:
        assert [hit.person_id for hit in client.search("lobby", png(1)).hits or []] == ["b"]
        assert not client.gallery("new").searchable


def test_a_second_service_on_the_same_data_folder_does_not_start(launch: Launch, bundle: Path, tmp_path: Path) -> None:
    launch()
    second = pan_serve("run", "--bundle", str(bundle), "--data", str(tmp_path / "data"), "--port", "0")
    assert second.returncode == 1
    assert "another pan-serve uses" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_failed_startup_says_why_in_one_line(bundle: Path, tmp_path: Path) -> None:
    result = pan_serve("run", "--bundle", str(tmp_path), "--data", str(tmp_path / "data"), "--port", "0")
    assert result.returncode == 1
    assert "is not a bundle" in result.stderr
    assert "Traceback" not in result.stderr

    async def start(**settings: Any) -> None:
        async with open_service(Settings(**{"bundle": bundle, "data": tmp_path / "data", **settings})):
            pass

    broken = write_bundle(tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"\0" * (broken / "model.onnx").stat().st_size)
    (tmp_path / "file").write_text("")
    for settings, says in [
        ({"bundle": broken}, "SHA-256 differs"),
        ({"precision": "int8"}, "has no int8 file; it holds onnx float32"),
        ({"max_queue": 10}, "would never fit into the queue"),
        ({"max_top_k": 0}, "max_top_k is 0"),
        ({"data": tmp_path / "file"}, "cannot be used"),
    ]:
        with pytest.raises(PanError, match=says):
            asyncio.run(start(**settings))


def test_a_port_in_use_is_a_startup_error(launch: Launch, bundle: Path, tmp_path: Path) -> None:
    port = launch().url.rsplit(":", 1)[1]
    result = pan_serve("run", "--bundle", str(bundle), "--data", str(tmp_path / "other"), "--port", port)
    assert result.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in result.stderr
