"""Bounds of connections, on a real server by raw sockets: what a client without any key can hold or make it write."""

import json
import resource
import select
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks.served import MIB, Served
from service.errors import StartupError
from service.listener import Connections, peer_of
from service.settings import Settings
from tests.attack.conftest import faults
from tests.service.conftest import running

Launch = Callable[..., Served]
HOST = b"Host: localhost\r\n"
HEAD = b"GET /healthz HTTP/1.1\r\n" + HOST
POST = b"POST /v1/embeddings HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"


def connect(url: str) -> socket.socket:
    where = urlsplit(url)
    return socket.create_connection((where.hostname, where.port), timeout=20)


def read(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    answer = b""
    while part := connection.recv(2**16):
        answer += part
    return answer


def ask(url: str, request: bytes) -> bytes:
    with connect(url) as connection:
        connection.sendall(request)
        return read(connection)


def metrics(url: str) -> dict[str, float]:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


@pytest.fixture(scope="module")
def url(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server with short times."""
    folder = tmp_path_factory.mktemp("connections")
    times = ("--header-timeout", "1", "--idle-timeout", "1", "--request-timeout", "2")
    server = Served(bundle, folder / "data", folder / "log", *times)
    yield server.url
    assert server.stop() == 0
    assert '"error"' not in (folder / "log").read_text()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (HEAD + b"X: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (HEAD + b"X: " + b"a" * 2_000_000, 431),
        (HEAD + b"X: a\r\n" * 101 + b"\r\n", 431),
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"\r\n" * 50_000, 431),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
        (HEAD + HOST + b"\r\n", 400),
        (HEAD + b"Authorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n", 400),
        (HEAD + b"X: a\r\n folded\r\n\r\n", 400),
        (HEAD + b"X\x00: a\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET http://[/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip, chunked, identity\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2;" + b"e" * 400_000, 431),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nT: " + b"t" * 400_000, 431),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + b"T: t\r\n" * 200 + b"\r\n", 431),
    ],
)
def test_a_head_that_is_too_large_or_can_be_read_in_two_ways_is_refused(url: str, request_: bytes, status: int) -> None:
    head, _, body = ask(url, request_).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nconnection: close" in head
    assert json.loads(body)["status"] == status  # one answer, and a problem document


def test_a_head_within_the_bounds_is_served_also_in_pieces(url: str) -> None:
    with connect(url) as connection:
        for piece in (HEAD, *[b"X: " + b"a" * 300 + b"\r\n"] * 95, b"Connection: close\r\n\r\n"):
            connection.sendall(piece)
        assert read(connection).startswith(b"HTTP/1.1 200 ")


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


def test_what_is_pipelined_is_answered_in_order_up_to_a_bound(url: str) -> None:
    one, other = HEAD + b"\r\n", b"GET /nothing HTTP/1.1\r\n" + HOST + b"\r\n"
    answer = ask(url, (one + other) * 4)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404"] * 4
    assert 16 <= ask(url, one * 1000).count(b"HTTP/1.1 200 ") < 32


def test_a_request_behind_another_that_cannot_be_read_leaves_its_answer_whole(url: str) -> None:
    answer = ask(url, HEAD + b"\r\n" + b"nonsense\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b'{"status":"ok"}')


def test_a_trailer_is_no_header(bundle: Path, tmp_path: Path) -> None:
    body = b'{"name": "one"}'
    request = b"POST /v1/galleries HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nConnection: close\r\n"
    chunk = b"%x\r\n%s\r\n0\r\nX-Forwarded-For: 10.9.9.9\r\n\r\n" % (len(body), body)
    with running(Settings(bundle=bundle, data=tmp_path, forwarded_allow_ips=("127.0.0.1",))) as client:
        answer = ask(str(client.base_url), request + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
        assert answer.startswith(b"HTTP/1.1 201 ")
    assert audited(tmp_path) == {"127.0.0.1"}


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
            "from service.listener import connections_possible; print(connections_possible(1024))",
        ],
        capture_output=True,
        text=True,
    )
    assert found.stdout == f"{possible}\n"
    assert ("raise it with" in found.stderr) == (possible < 1024)


def audited(folder: Path) -> set[str]:
    with sqlite3.connect(folder / "pan.sqlite3") as db:
        who = {row[0] for row in db.execute("SELECT who FROM audit")}
    db.close()
    return who


@pytest.mark.parametrize(
    ("proxies", "sent", "who"),
    [
        ((), "10.9.9.9", "127.0.0.1"),
        (("10.0.0.0/8",), "10.9.9.9", "127.0.0.1"),
        (("127.0.0.1", "10.0.0.0/8"), "8.8.8.8, 10.9.9.9", "8.8.8.8"),
        (("127.0.0.0/8",), "operator", "unknown"),
    ],
)
def test_only_a_trusted_proxy_says_who_asks(
    bundle: Path, tmp_path: Path, proxies: tuple[str, ...], sent: str, who: str
) -> None:
    with running(Settings(bundle=bundle, data=tmp_path, forwarded_allow_ips=proxies)) as client:
        made = client.post("/v1/galleries", json={"name": "one"}, headers={"X-Forwarded-For": sent})
        assert made.status_code == 201
    assert audited(tmp_path) == {who}


def test_proxies_are_addresses(bundle: Path, tmp_path: Path) -> None:
    settings = Settings(bundle=bundle, data=tmp_path, forwarded_allow_ips=("10.0.0.1", "*"))
    with pytest.raises(StartupError, match=r"give addresses \(10.0.0.2\) or networks"), running(settings):
        pass


def test_a_client_that_hangs_up_or_sends_nonsense_is_no_fault_of_the_service(url: str) -> None:
    def answers(status: int) -> float:
        name = 'pan_requests_total{method="POST",route="/v1/embeddings",status="%d"}'
        return metrics(url).get(name % status, 0)

    gone, bad = answers(499), answers(400)
    for kind in ("application/json", "image/png", "multipart/form-data; boundary=b"):
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n".encode()
        with connect(url) as connection:
            connection.sendall(head + b"Content-Length: 1000\r\n\r\n--b")
            time.sleep(0.2)
        answer = ask(url, head + b"Transfer-Encoding: chunked\r\n\r\n3\r\n--b\r\nnonsense\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1 ") == 1
    while answers(499) - gone < 3:
        time.sleep(0.05)
    assert answers(400) - bad == 3
    assert answers(500) == 0


def test_what_was_sent_is_not_sent_back_at_length(api: httpx.Client) -> None:
    long = "k" * 2_000_000
    for answer in (
        api.post("/v1/galleries", json={long: 1}),
        api.post("/v1/galleries", json={"name": long}),
        api.post("/v1/galleries/none/entries", json={"entries": [{"vector": [1], long: long}]}),
        api.post("/v1/embeddings", json={long: 1, "images": [long]}),
        api.patch("/v1/galleries/none", json={"purpose": 1, long: long}),
        api.post("/v1/embeddings", data={long: long}, files={"images": ("x", b"x")}),
        api.get("/v1/galleries/none/entries", params={"limit": "9" * 4000}),
        api.get(f"/v1/galleries/{'g' * 4000}/entries"),
    ):
        assert 400 <= answer.status_code < 500
        assert len(answer.content) < 20_000
