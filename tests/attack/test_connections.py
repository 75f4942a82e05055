"""Bounds of connections, on a real server by raw sockets: what a client without any key can hold or make it write."""

import json
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks.common.served import MIB, Served
from service.api.listener import Connections, peer_of
from service.core.settings import Settings
from tests.attack.conftest import faults
from tests.attack.wire import HEAD, HOST, POST, ask, connect, metrics, read
from tests.support.servers import running

Launch = Callable[..., Served]


def test_a_header_without_an_end_takes_no_memory(launch: Launch) -> None:
    server = launch()
    assert ask(server.url, HEAD + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    before = server.resident()
    with connect(server.url) as connection:
        connection.sendall(HEAD + b"X: ")
        for _ in range(100):
            connection.sendall(b"a" * MIB)
        assert read(connection).startswith(b"HTTP/1.1 431 ")
    assert server.resident() - before < 8 * MIB


@pytest.mark.parametrize("begun", [b"", HEAD, HEAD + b"\r\n", HEAD + b"\r\n" + HEAD])
def test_who_sends_no_request_or_half_of_one_is_given_up(url: str, begun: bytes) -> None:
    answer = ask(url, begun)  # ends only because the server closes
    assert answer.count(b"HTTP/1.1 200 ") == begun.count(b"\r\n\r\n")
    assert (b"HTTP/1.1 408 " in answer) == (begun.endswith(HEAD))


def test_a_byte_from_time_to_time_does_not_keep_a_connection(url: str) -> None:
    for begun in (b"", POST + b"Content-Length: 999999999\r\n\r\n"):  # the latter is refused before its body comes
        with connect(url) as connection:
            connection.sendall(begun)
            ended = False
            for _ in range(100):
                try:
                    connection.sendall(b"x")
                except OSError:
                    ended = True
                    break
                time.sleep(0.1)
            assert ended


def test_who_does_not_read_an_answer_is_given_up(url: str) -> None:
    text = {f"a{n}": "x" * 200 for n in range(16)}
    with httpx.Client(base_url=url, timeout=30) as http:
        http.post("/v1/galleries", json={"name": "large"})
        entries = [{"vector": [1.0] * 64, "attributes": text}] * 256
        for _ in range(16):
            assert http.post("/v1/galleries/large/entries", json={"entries": entries}).status_code == 201
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        where = urlsplit(url)
        connection.connect((where.hostname, where.port))
        connection.sendall(b"POST /v1/galleries/large/export HTTP/1.1\r\n" + HOST + b"\r\n")
        while metrics(url)["pan_connections"] > 1:  # the one that asks
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("embeddings", "image/png"),
        ("embeddings", "application/json"),
        ("galleries/slow/entries", "multipart/form-data; boundary=b"),
        ("galleries/slow/entries/stream", "application/x-ndjson"),
        ("galleries/none/import", "application/octet-stream"),
    ],
)
def test_a_body_that_comes_by_the_byte_is_given_up(url: str, call: str, kind: str) -> None:
    httpx.post(f"{url}/v1/galleries", json={"name": "slow"})
    head = f"POST /v1/{call} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 99999\r\n\r\n"
    with connect(url) as connection:
        connection.sendall(head.encode())
        answered = ended = False
        for _ in range(100):
            try:
                connection.sendall(b"-")
                answered = answered or bool(select.select([connection], [], [], 0.1)[0])
                time.sleep(0.1 if answered else 0)
            except OSError:
                ended = True
                break
        assert (answered, ended) == (True, True)


def test_idle_connections_make_room_and_fill_no_log(launch: Launch, tmp_path: Path) -> None:
    server = launch("--max-connections", "20")
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connect(server.url)).sendall(HEAD)
        with httpx.Client(base_url=server.url) as http:
            for _ in range(20):
                assert http.get("/healthz").status_code == 200
        seen = metrics(server.url)
        assert seen["pan_connections"] <= 20
        assert seen["pan_connections_evicted_total"] >= 180
    assert server.stop() == 0
    assert len((tmp_path / "log").read_text().splitlines()) < 50


def test_who_does_not_read_answers_makes_room(bundle: Path, tmp_path: Path) -> None:
    with (
        running(Settings(bundle=bundle, data=tmp_path, max_connections=4, request_timeout=60)) as client,
        ExitStack() as stack,
    ):
        where = client.base_url
        for _ in range(8):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((where.host, where.port))
            connection.setblocking(False)
            for _ in range(20):  # of a hundred kilobytes; the server stops reading when its answers are not taken
                with suppress(BlockingIOError, ConnectionError):
                    connection.send((b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n") * 4)
                time.sleep(0.01)
        assert ask(str(where), HEAD + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_answers_that_nobody_reads_are_dropped_when_they_are_too_many(bundle: Path, tmp_path: Path) -> None:
    settings = Settings(bundle=bundle, data=tmp_path, max_body=2 * MIB, max_bodies=4 * MIB, request_timeout=60)
    with running(settings) as client, ExitStack() as stack:
        client.post("/v1/galleries", json={"name": "large"})
        text = {f"a{n}": "x" * 200 for n in range(16)}
        entries = [{"vector": [1.0] * 64, "attributes": text}] * 256
        for _ in range(4):
            assert client.post("/v1/galleries/large/entries", json={"entries": entries}).status_code == 201
        where = client.base_url
        for _ in range(20):  # 80 MB of answers
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((where.host, where.port))
            connection.sendall(b"GET /v1/galleries/large/entries?limit=1000 HTTP/1.1\r\n" + HOST + b"\r\n")
        while metrics(str(where))["pan_connections_evicted_total"] < 10:
            time.sleep(0.1)
        while metrics(str(where))["pan_unsent_bytes"] > 4 * MIB:
            time.sleep(0.1)
        whole = client.get("/v1/galleries/large/entries", params={"limit": 1000})
        assert len(whole.json()["entries"]) == 1000


def test_where_all_connections_are_being_answered_another_is_refused(bundle: Path, tmp_path: Path) -> None:
    begun = POST + b"Content-Length: 100\r\n\r\n{"
    settings = Settings(bundle=bundle, data=tmp_path, max_connections=2, request_timeout=60)
    with running(settings) as client, connect(str(client.base_url)) as one, connect(str(client.base_url)) as other:
        one.sendall(begun)
        other.sendall(begun)
        time.sleep(0.5)
        refused = ask(str(client.base_url), b"")
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in refused
        assert json.loads(refused.partition(b"\r\n\r\n")[2])["code"] == "too-many-connections"
        one.close()
        time.sleep(0.5)
        assert ask(str(client.base_url), HEAD + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_stop_ends_whatever_is_open(launch: Launch, tmp_path: Path) -> None:
    server = launch("--request-timeout", "2")
    httpx.post(f"{server.url}/v1/galleries", json={"name": "g"})
    begun = (
        b"",
        b"GET / HT",
        HEAD + b"\r\n",
        POST + b"Content-Length: 100\r\n\r\n{",
        POST.replace(b"embeddings", b"galleries/g/entries/stream").replace(b"json", b"x-ndjson")
        + b'Transfer-Encoding: chunked\r\n\r\n3\r\n"a"\r\n',
        POST.replace(b"embeddings", b"galleries/n/import").replace(b"json", b"octet-stream")
        + b"Content-Length: 9\r\n\r\n",
        (b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n") * 16,
    )
    with ExitStack() as stack:
        for request in begun * 5:
            stack.enter_context(connect(server.url)).sendall(request)
        time.sleep(0.5)
        assert server.stop() == 0
    assert faults(tmp_path / "log") == []


def test_one_address_has_a_bound_of_its_own(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(bundle=bundle, data=tmp_path, max_connections_per_address=2)
    with running(settings) as client, ExitStack() as stack:
        url = str(client.base_url)
        many = [stack.enter_context(connect(url)) for _ in range(10)]  # loopback has none
        assert metrics(url)["pan_connections"] >= 10
        monkeypatch.setattr(Connections, "_is_exempt", lambda *_: False)
        assert client.get("/healthz", headers={"Connection": "close"}).status_code == 200
        for connection in many:
            connection.close()
        while metrics(url)["pan_connections"] > 1:  # the one that asks
            time.sleep(0.05)
        begun = POST + b"Content-Length: 100\r\n\r\n{"
        for _ in range(2):
            stack.enter_context(connect(url)).sendall(begun)
        time.sleep(0.5)
        assert ask(url, b"").startswith(b"HTTP/1.1 503 ")


def test_what_counts_as_one_address() -> None:
    assert peer_of("10.0.0.1") == peer_of("::ffff:10.0.0.1") == "10.0.0.1"
    assert peer_of("2001:db8::1") == peer_of("2001:db8::2") != peer_of("2001:db8:0:1::1")
    assert peer_of("fe80::1%eth0") == "fe80::/64"
    assert peer_of("::1") == "::1"


def test_without_file_descriptors_the_service_waits_and_says_so_once_a_second(launch: Launch, tmp_path: Path) -> None:
    server = launch("--max-connections", "500")
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    held = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (held + 5, limits[1]))
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(server.url)).sendall(HEAD)
        time.sleep(3)
        lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
        assert 1 <= sum("no connection can be accepted" in line["message"] for line in lines) <= 6
        assert len(lines) < 50
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
    assert httpx.get(f"{server.url}/readyz", timeout=20).status_code == 200
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("soft", "hard", "possible"), [(256, 4096, 1024), (256, 600, 472), (64, 64, 32), (4096, 4096, 1024)]
)
def test_as_many_connections_as_the_limit_of_open_files_allows(soft: int, hard: int, possible: int) -> None:
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
            "from service.api.listener import connections_possible; print(connections_possible(1024))",
        ],
        capture_output=True,
        text=True,
    )
    assert found.stdout == f"{possible}\n"
    assert ("raise it with" in found.stderr) == (possible < 1024)
