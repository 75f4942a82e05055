"""Slow connections: timeouts, responses that the client does not read, and shutdown."""

import select
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks.common.served import MIB, Served
from tests.attack.conftest import logged_errors
from tests.attack.wire import HEAD, HOST, POST, ask, connect, metrics, read

Launch = Callable[..., Served]


def test_an_endless_header_uses_no_memory(launch: Launch) -> None:
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
def test_a_connection_without_a_complete_request_times_out(url: str, begun: bytes) -> None:
    answer = ask(url, begun)  # returns when the server closes the connection
    assert answer.count(b"HTTP/1.1 200 ") == begun.count(b"\r\n\r\n")
    assert (b"HTTP/1.1 408 " in answer) == (begun.endswith(HEAD))


def test_sending_single_bytes_does_not_extend_the_timeout(url: str) -> None:
    for begun in (b"", POST + b"Content-Length: 999999999\r\n\r\n"):  # the second is refused before its body arrives
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


def test_a_client_that_does_not_read_its_response_is_disconnected(url: str) -> None:
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
        while metrics(url)["pan_connections"] > 1:  # the connection of this request
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
def test_a_slowly_sent_body_times_out(url: str, call: str, kind: str) -> None:
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


def test_shutdown_closes_open_connections(launch: Launch, tmp_path: Path) -> None:
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
    assert logged_errors(tmp_path / "log") == []
