"""Limits on connections: in all, per address, by open files and by unread bytes, and the eviction of idle ones."""

import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from benchmarks.common.served import MIB, Served
from service.api.listener import Connections, peer_of
from service.core.settings import Settings
from tests.attack.wire import HEAD, HOST, POST, ask, connect, metrics
from tests.support.servers import running

Launch = Callable[..., Served]


def test_idle_connections_are_evicted_without_filling_the_log(launch: Launch, tmp_path: Path) -> None:
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


def test_connections_that_read_no_responses_are_evicted(bundle: Path, tmp_path: Path) -> None:
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
            for _ in range(20):  # 100 kB each; the server stops reading while its responses are not read
                with suppress(BlockingIOError, ConnectionError):
                    connection.send((b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n") * 4)
                time.sleep(0.01)
        assert ask(str(where), HEAD + b"Connection: close\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_unread_responses_have_a_limit_in_bytes(bundle: Path, tmp_path: Path) -> None:
    settings = Settings(bundle=bundle, data=tmp_path, max_body=2 * MIB, max_bodies=4 * MIB, request_timeout=60)
    with running(settings) as client, ExitStack() as stack:
        client.post("/v1/galleries", json={"name": "large"})
        text = {f"a{n}": "x" * 200 for n in range(16)}
        entries = [{"vector": [1.0] * 64, "attributes": text}] * 256
        for _ in range(4):
            assert client.post("/v1/galleries/large/entries", json={"entries": entries}).status_code == 201
        where = client.base_url
        for _ in range(20):  # 80 MB of responses
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


def test_a_connection_above_the_limit_is_refused_with_503(bundle: Path, tmp_path: Path) -> None:
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


def test_connections_per_address_are_limited(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(bundle=bundle, data=tmp_path, max_connections_per_address=2)
    with running(settings) as client, ExitStack() as stack:
        url = str(client.base_url)
        many = [stack.enter_context(connect(url)) for _ in range(10)]  # loopback has no limit
        assert metrics(url)["pan_connections"] >= 10
        monkeypatch.setattr(Connections, "_is_exempt", lambda *_: False)
        assert client.get("/healthz", headers={"Connection": "close"}).status_code == 200
        for connection in many:
            connection.close()
        while metrics(url)["pan_connections"] > 1:  # the connection of this request
            time.sleep(0.05)
        begun = POST + b"Content-Length: 100\r\n\r\n{"
        for _ in range(2):
            stack.enter_context(connect(url)).sendall(begun)
        time.sleep(0.5)
        assert ask(url, b"").startswith(b"HTTP/1.1 503 ")


def test_a_peer_is_an_ipv4_address_or_an_ipv6_prefix() -> None:
    assert peer_of("10.0.0.1") == peer_of("::ffff:10.0.0.1") == "10.0.0.1"
    assert peer_of("2001:db8::1") == peer_of("2001:db8::2") != peer_of("2001:db8:0:1::1")
    assert peer_of("fe80::1%eth0") == "fe80::/64"
    assert peer_of("::1") == "::1"


def test_without_file_descriptors_the_service_waits_and_logs_once_a_second(launch: Launch, tmp_path: Path) -> None:
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
def test_the_limit_on_open_files_lowers_the_limit_on_connections(soft: int, hard: int, possible: int) -> None:
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
            "from service.api.listener import raise_file_limit; print(raise_file_limit(1024))",
        ],
        capture_output=True,
        text=True,
    )
    assert found.stdout == f"{possible}\n"
    assert ("raise it with" in found.stderr) == (possible < 1024)
