"""Imports and streams that are malformed, interrupted or concurrent, and failures of the data folder."""

import gzip
import json
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks.common.served import MIB, Served
from tests.attack.conftest import VECTOR, Target, logged_errors, problem
from tests.support.servers import pan_serve

Launch = Callable[..., Served]
FILE = "application/octet-stream"
LINES = "application/x-ndjson"


@pytest.fixture(scope="module")
def exported(target: Target) -> list[bytes]:
    """The lines of an export of `g`: the header, 20 entries, and the footer."""
    return target.http.post("/v1/galleries/g/export").content.splitlines(keepends=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda _: b"",
        lambda _: b"x" * 20_000_000,
        lambda _: b'{"a":"' + b"x" * 20_000_000 + b'"}\n',
        lambda lines: lines[0] + b"{}\n" * 1_000_000,
        lambda lines: lines[0] + b"\n" * 5_000_000,
        lambda lines: lines[0] + b"{" + b",".join(b'"k%d":1' % n for n in range(500_000)) + b"}\n",
        lambda lines: lines[0] + b'{"attributes":' + b"[" * 1000 + b"]" * 1000 + b"}\n",
        lambda lines: lines[0] + lines[1] * 1000,
        lambda lines: b"".join(lines[:-1]),
        lambda lines: b"".join(lines)[:-20],
        lambda lines: b"".join(lines) + lines[1],
        lambda lines: b"".join(lines) * 2,
        lambda lines: b"".join([lines[0], *lines[2:]]),
        lambda lines: b"".join([lines[0], lines[1], *lines[1:]]),
        lambda lines: b"".join([lines[0], lines[2], lines[1], *lines[3:]]),
        lambda lines: b"".join(lines).replace(b'"p1"', b'"p2"'),
        lambda lines: b"".join(lines).replace(b'"version":', b'"version":1'),
        lambda lines: gzip.compress(b"".join(lines)),
        lambda lines: b"".join(lines).replace(b"\n", b"\r"),
        lambda lines: b"".join(lines).decode().encode("utf-16"),
    ],
)
def test_a_malformed_import_is_refused_and_leaves_nothing(
    target: Target, exported: list[bytes], make: Callable[[list[bytes]], bytes]
) -> None:
    before = target.server.resident()
    target.reset_peak()
    answer = target.post("/v1/galleries/bomb/import", make(exported), FILE)
    assert answer.status_code == problem(answer)["status"] == 422
    assert target.peak() - before < 160 * MIB
    assert target.http.get("/v1/galleries/bomb").status_code == 404


def test_one_of_several_concurrent_imports_of_a_name_succeeds(target: Target, exported: list[bytes]) -> None:
    statuses: list[int] = []

    def import_() -> None:
        statuses.append(target.post("/v1/galleries/once/import", b"".join(exported), FILE).status_code)

    threads = [threading.Thread(target=import_) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, *[409] * 5]
    assert target.http.get("/v1/galleries/once").json()["entries"] == 20
    assert target.http.delete("/v1/galleries/once").status_code == 200


def begin(url: str, path: str, kind: str, body: bytes) -> socket.socket:
    """Send a request with the beginning of its body."""
    where = urlsplit(url)
    connection = socket.create_connection((where.hostname, where.port), timeout=30)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 99999999\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_an_interrupted_import_leaves_nothing(target: Target, exported: list[bytes]) -> None:
    with begin(target.server.url, "/v1/galleries/half/import", FILE, b"".join(exported[:12])):
        time.sleep(0.3)
        assert target.http.get("/v1/galleries/half").status_code == 404
    while target.post("/v1/galleries/half/import", b"".join(exported), FILE).status_code == 409:
        time.sleep(0.05)
    assert target.http.get("/v1/galleries/half").json()["entries"] == 20
    assert target.http.delete("/v1/galleries/half").status_code == 200


def test_a_kill_keeps_acknowledged_lines_and_no_partial_import(launch: Launch, exported: list[bytes]) -> None:
    server = launch()
    line = json.dumps({"vector": VECTOR, "person_id": "p"}).encode() + b"\n"
    with httpx.Client(base_url=server.url) as http:
        http.post("/v1/galleries", json={"name": "stream"})
        with (
            begin(server.url, "/v1/galleries/half/import", FILE, b"".join(exported[:12])),
            begin(server.url, "/v1/galleries/stream/entries/stream", LINES, line * 50) as stream,
        ):
            answers = b""
            while answers.count(b'"entry_id"') < 50:
                answers += stream.recv(2**16)
            server.stop(signal.SIGKILL)
    server = launch()
    with httpx.Client(base_url=server.url) as http:
        assert http.get("/v1/galleries/half").status_code == 404
        assert http.get("/v1/galleries/stream").json()["entries"] == 50
        answer = http.post("/v1/galleries/half/import", content=b"".join(exported), headers={"Content-Type": FILE})
        assert answer.status_code == 201


def test_deleting_a_gallery_ends_its_running_export_and_stream(launch: Launch, tmp_path: Path) -> None:
    server = launch()
    with httpx.Client(base_url=server.url, timeout=30) as http:
        http.post("/v1/galleries", json={"name": "gone"})
        entries = [{"vector": VECTOR, "attributes": {f"a{n}": "x" * 200 for n in range(16)}}] * 250
        for _ in range(16):
            assert http.post("/v1/galleries/gone/entries", json={"entries": entries}).status_code == 201

        def lines() -> Iterator[bytes]:
            yield json.dumps({"vector": VECTOR}).encode() + b"\n"
            deleted.wait(30)
            yield json.dumps({"vector": VECTOR}).encode() + b"\n"

        deleted, answers = threading.Event(), list[str]()
        url = f"{server.url}/v1/galleries/gone"

        def stream() -> None:
            answers.append(httpx.post(f"{url}/entries/stream", content=lines(), headers={"Content-Type": LINES}).text)

        streaming = threading.Thread(target=stream)
        streaming.start()
        while http.get("/v1/galleries/gone").json()["entries"] == 4000:
            time.sleep(0.05)
        with http.stream("POST", "/v1/galleries/gone/export") as export:
            parts = export.iter_raw(1000)
            next(parts)
            assert http.delete("/v1/galleries/gone").status_code == 200
            with pytest.raises(httpx.RemoteProtocolError):  # so that the file is not taken for a complete one
                for _ in parts:
                    pass
        assert http.post("/v1/galleries", json={"name": "gone"}).status_code == 201  # a new gallery of the same name
        deleted.set()
        streaming.join()
        assert '"entry_id"' in answers[0].splitlines()[0]
        assert json.loads(answers[0].splitlines()[-1])["error"]["code"] == "not-found"
        assert http.get("/v1/galleries/gone").json()["entries"] == 0
    assert server.stop() == 0
    assert logged_errors(tmp_path / "log") == []


def test_a_full_disk_fails_a_stream_and_an_import_without_losing_data(launch: Launch, exported: list[bytes]) -> None:
    server = launch()
    line = json.dumps({"vector": VECTOR}).encode() + b"\n"
    with httpx.Client(base_url=server.url, timeout=30) as http:
        http.post("/v1/galleries", json={"name": "full"})
        with begin(server.url, "/v1/galleries/full/entries/stream", LINES, line * 5) as stream:
            answers = b""
            while answers.count(b'"entry_id"') < 5:
                answers += stream.recv(2**16)
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            stream.sendall(line * 5)
            while b"storage-failed" not in answers:
                answers += stream.recv(2**16)
        refused = http.post("/v1/galleries/in/import", content=b"".join(exported), headers={"Content-Type": FILE})
        assert refused.status_code == 503
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert answers.count(b'"entry_id"') == http.get("/v1/galleries/full").json()["entries"] == 5
        assert http.get("/v1/galleries/in").status_code == 404
        again = http.post("/v1/galleries/in/import", content=b"".join(exported), headers={"Content-Type": FILE})
        assert again.status_code == 201


def test_the_lock_holds_for_a_symbolic_link_to_the_data_folder(launch: Launch, bundle: Path, tmp_path: Path) -> None:
    launch()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    refused = pan_serve("run", "--bundle", str(bundle), "--data", str(tmp_path / "link"), "--port", "0")
    assert refused.returncode == 1
    assert "another pan-serve uses" in refused.stderr


def test_readiness_fails_while_the_data_folder_is_missing(launch: Launch, tmp_path: Path) -> None:
    server = launch()
    with httpx.Client(base_url=server.url) as http:
        http.post("/v1/galleries", json={"name": "kept"})
        (tmp_path / "data").rename(tmp_path / "moved")
        assert http.get("/readyz").status_code == 503
        (tmp_path / "moved").rename(tmp_path / "data")
        assert http.get("/readyz").status_code == 200
        entries = [{"vector": VECTOR}]
        assert http.post("/v1/galleries/kept/entries", json={"entries": entries}).status_code == 201
    assert server.stop() == 0
