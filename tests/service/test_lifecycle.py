"""The service as a process: started, killed, stopped and started again over one data folder, through the real CLI."""

import asyncio
import json
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
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
from tests.support.pictures import png, write_market
from tests.support.servers import pan_reid, pan_serve

Launch = Callable[..., Served]


def test_a_restart_finds_everything_again(launch: Launch) -> None:
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
        assert client.enrol("lobby", [Crop(png(50))]).results[0].entry_id == 21  # ids go on where they were


def test_sigkill_during_enrolment_loses_nothing_acknowledged_and_brings_nothing_back(launch: Launch) -> None:
    server = launch()
    with Client(server.url) as client:
        client.create_gallery("lobby")
    acknowledged: set[int] = set()
    asked: set[int] = set()  # to be erased; the answer to the last one of a thread may be lost with the server
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
        # In flight when the server died: at most one request a thread, whole or not at all.
        assert len(found - acknowledged) in {0, 4, 8, 12}
        answer = client.search_vector("lobby", np.ones(64, np.float32), top_k=5000)
        assert {hit.entry_id for hit in answer.hits or []} == found


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_stop_finishes_what_is_in_flight(launch: Launch) -> None:
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
        while answers(server.url):
            time.sleep(0.02)
        connection.sendall(png(1)[100:])
        assert connection.recv(4096).startswith(b"HTTP/1.1 201 ")
    stopping.join()
    assert stopped == [0]
    server = launch()
    with Client(server.url) as client:
        assert client.gallery("lobby").entries == 1


def test_a_gallery_of_another_model_is_kept_and_answers_by_its_own_vectors_only(launch: Launch, tmp_path: Path) -> None:
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
        assert client.erase_person("lobby", "a").entries == 1  # the right to be forgotten does not wait for a model
        client.create_gallery("new")
        client.enrol("new", [Crop(png(1))])
    other.stop()
    server = launch()
    with Client(server.url) as client:
        assert [hit.person_id for hit in client.search("lobby", png(1)).hits or []] == ["b"]
        assert not client.gallery("new").searchable


def test_a_second_service_stays_out_of_a_data_folder(launch: Launch, bundle: Path, tmp_path: Path) -> None:
    launch()
    second = pan_serve("run", "--bundle", str(bundle), "--data", str(tmp_path / "data"), "--port", "0")
    assert second.returncode == 1
    assert "another pan-serve uses" in second.stderr
    assert "Traceback" not in second.stderr


def test_what_cannot_start_says_why_in_one_line(bundle: Path, tmp_path: Path) -> None:
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


def test_a_taken_port_is_said_so(launch: Launch, bundle: Path, tmp_path: Path) -> None:
    port = launch().url.rsplit(":", 1)[1]
    result = pan_serve("run", "--bundle", str(bundle), "--data", str(tmp_path / "other"), "--port", port)
    assert result.returncode == 1
    assert f"cannot listen at 127.0.0.1 port {port}" in result.stderr


def test_a_folder_is_enrolled_and_searched_from_the_command_line(launch: Launch, tmp_path: Path) -> None:
    server = launch()
    folder = write_market(tmp_path / "market", persons=12, cameras=3)
    (folder / "0001_c1s1_000099_01.jpg").write_bytes(b"broken")
    enrolled = pan_reid("enrol", str(folder), "--gallery", "lobby", "--url", server.url, "--batch", "7")
    assert enrolled.returncode == 1  # a file failed
    assert "enrolled 37 of 38 crops in lobby" in enrolled.stderr
    assert "0001_c1s1_000099_01.jpg: these 6 bytes are not a" in enrolled.stderr
    with Client(server.url) as client:
        entries = list(client.entries("lobby"))
        assert len(list(client.persons("lobby"))) == 12
    assert {entry.camera_id for entry in entries} == {"c1", "c2", "c3"}
    distractors = [entry for entry in entries if entry.person_id is None]
    assert [entry.attributes for entry in distractors] == [{"file": "0000_c1s1_000000_01.jpg"}]
    query = folder / "0005_c2s1_000000_01.jpg"
    arguments = ("search", str(query), "--gallery", "lobby", "--url", server.url)
    found = json.loads(pan_reid(*arguments, "--top-k", "3", "--json").stdout)
    assert [hit["person_id"] for hit in found["hits"]] == ["0005"] * 3
    assert found["hits"][0]["attributes"] == {"file": query.name}
    table = pan_reid(*arguments, "--group-by-person").stdout
    assert "0005" in table
    assert query.name in table


def test_the_command_line_says_what_is_wrong(launch: Launch, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(png(1))
    url = launch().url
    nowhere = pan_reid("search", str(picture), "--gallery", "x", "--url", "http://127.0.0.1:9")
    assert (nowhere.returncode, "is `pan-serve run` there?" in nowhere.stderr) == (1, True)
    missing = pan_reid("search", str(picture), "--gallery", "x", "--url", url)
    assert (missing.returncode, "there is no gallery x" in missing.stderr) == (1, True)
    (tmp_path / "empty").mkdir()
    empty = pan_reid("enrol", str(tmp_path / "empty"), "--gallery", "x", "--url", url)
    assert (empty.returncode, "has no images" in empty.stderr) == (1, True)


def test_logs_are_json_lines_that_name_no_person_and_the_audit_says_who_did_what(
    launch: Launch, tmp_path: Path
) -> None:
    server = launch()
    with Client(server.url) as client:
        client.create_gallery("lobby")
        client.enrol("lobby", [Crop(png(1), EntryInfo(person_id="jane-doe")), Crop(png(2))])
        client.search("lobby", png(1), png(2))
        client.erase_person("lobby", "jane-doe")
        client.delete_gallery("lobby")
    server.stop()
    text = (tmp_path / "log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    requests = [line for line in lines if line["message"] == "request"]
    assert [line["status"] for line in requests] == [201, 201, 200, 200, 200]
    assert all(line["request_id"] for line in requests)
    assert "jane-doe" not in text
    with sqlite3.connect(tmp_path / "data" / "pan.sqlite3") as db:
        audit = db.execute("SELECT who, action, gallery, count FROM audit ORDER BY id").fetchall()
    db.close()
    assert audit == [
        ("127.0.0.1", "create-gallery", "lobby", 0),
        ("127.0.0.1", "enrol", "lobby", 2),
        ("127.0.0.1", "search", "lobby", 2),
        ("127.0.0.1", "erase-person", "lobby", 1),
        ("127.0.0.1", "delete-gallery", "lobby", 1),
    ]


def test_no_query_is_in_the_log(launch: Launch, tmp_path: Path) -> None:
    server = launch()
    secret = "jane-doe"
    with httpx.Client(base_url=server.url, timeout=30) as http:
        http.post("/v1/galleries", json={"name": "lobby"})
        raw = {"content": png(1), "headers": {"Content-Type": "image/png"}}
        answers = [
            http.post("/v1/galleries/lobby/entries", params={"person_id": secret}, **raw),  # type: ignore[arg-type]
            http.post("/v1/galleries/lobby/search", params={"persons": secret}, **raw),  # type: ignore[arg-type]
            http.get("/v1/galleries/lobby/entries", params={"person_id": secret}),
            http.delete("/v1/galleries/lobby/persons", params={"person_id": secret}),
            http.delete("/v1/galleries/lobby/persons", params={"person_id": secret}),
            http.get("/v1/galleries/lobby/entries", params={secret: "1"}),
            http.get(f"/{secret}", params={"person_id": secret}),
            http.get("/v1/galleries", params={"person_id": secret * 2000}),
            http.get("/healthz", params={"person_id": secret}),
        ]
        assert [answer.status_code for answer in answers] == [201, 200, 200, 200, 404, 422, 404, 414, 200]
        with suppress(httpx.HTTPError):  # it is cut off in the middle of what it sends
            http.post("/v1/galleries/lobby/search", params={"persons": secret}, content=iter([b"{", b"x" * 2**27]))
    server.stop()
    text = (tmp_path / "log").read_text()
    assert '"route":"/v1/galleries/{gallery}/persons"' in text
    assert secret not in text


def test_the_data_folder_is_for_its_owner_only(launch: Launch, tmp_path: Path) -> None:
    launch()
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0


def test_nothing_of_an_erased_person_is_left_in_any_file(launch: Launch, tmp_path: Path) -> None:
    data = tmp_path / "data"

    def held() -> bytes:
        return b"".join(path.read_bytes() for path in data.iterdir())

    with Client(launch().url) as client:
        for gallery in ("lobby", "garage"):
            client.create_gallery(gallery)
            info = EntryInfo(person_id="jane-doe", camera_id="c1", attributes={"note": "a-red-coat"})
            client.enrol(gallery, [Crop(png(1), info)] * 40 + [Crop(png(2), EntryInfo(person_id="john-roe"))] * 40)
        jane, john = (client.embed([png(n)])[0].astype("<f4").tobytes() for n in (1, 2))
        assert all(part in held() for part in (jane, john, b"jane-doe", b"john-roe", b"a-red-coat"))
        assert client.erase_person("lobby", "jane-doe").overwritten
        assert jane in held()  # of the other gallery
        assert client.erase_person("garage", "jane-doe").overwritten
        assert not any(part in held() for part in (jane, b"jane-doe", b"a-red-coat"))
        assert john in held()
        assert client.delete_gallery("garage").overwritten
        with sqlite3.connect(data / "pan.sqlite3", isolation_level=None) as reader:  # a backup that takes its time
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM entries").fetchone()
            receipt = client.erase_person("lobby", "john-roe")
            assert (receipt.entries, receipt.overwritten) == (40, False)
            assert john in held()
            reader.execute("COMMIT")
        reader.close()
        assert client.delete_gallery("lobby").overwritten
        assert not any(part in held() for part in (john, b"john-roe"))
