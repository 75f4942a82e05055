"""Ambiguous or malformed HTTP framing, and the client address behind proxies."""

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from benchmarks.common.served import Served
from service.core.errors import StartupError
from service.core.settings import Settings
from tests.attack.wire import HEAD, HOST, POST, ask, connect, metrics, read
from tests.support.servers import running

Launch = Callable[..., Served]


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
        (b"GET /healthz HTTP/1.1\rHost: localhost\r\r", 400),
        (b"GET /healthz HTTP/1.1\nHost: localhost\n\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1" + b"\0" * 160, 400),  # TLS
        (POST + b"Content-Length: +2\r\n\r\n{}", 400),
        (POST + b"Content-Length: 2, 2\r\n\r\n{}", 400),
        (POST + b"Content-Length: 99999999999999999999999\r\n\r\n{}", 400),
        (POST + b"Transfer-Encoding : chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}", 400),
        (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip, chunked, identity\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2;" + b"e" * 400_000, 431),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nT: " + b"t" * 400_000, 431),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + b"T: t\r\n" * 200 + b"\r\n", 431),
    ],
)
def test_a_too_large_or_ambiguous_request_head_is_refused(url: str, request_: bytes, status: int) -> None:
    head, _, body = ask(url, request_).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nconnection: close" in head
    assert json.loads(body)["status"] == status  # a single response with a problem document


def test_a_request_head_within_the_limits_may_arrive_in_pieces(url: str) -> None:
    with connect(url) as connection:
        for piece in (HEAD, *[b"X: " + b"a" * 300 + b"\r\n"] * 95, b"Connection: close\r\n\r\n"):
            connection.sendall(piece)
        assert read(connection).startswith(b"HTTP/1.1 200 ")


def test_pipelined_requests_are_answered_in_order_up_to_a_limit(url: str) -> None:
    one, other = HEAD + b"\r\n", b"GET /nothing HTTP/1.1\r\n" + HOST + b"\r\n"
    answer = ask(url, (one + other) * 4)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404"] * 4
    assert 16 <= ask(url, one * 1000).count(b"HTTP/1.1 200 ") < 32


def test_a_malformed_pipelined_request_does_not_truncate_the_previous_response(url: str) -> None:
    answer = ask(url, HEAD + b"\r\n" + b"nonsense\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b'{"status":"ok"}')


def test_a_trailer_field_is_not_used_as_a_header(bundle: Path, tmp_path: Path) -> None:
    body = b'{"name": "one"}'
    request = b"POST /v1/galleries HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nConnection: close\r\n"
    chunk = b"%x\r\n%s\r\n0\r\nX-Forwarded-For: 10.9.9.9\r\n\r\n" % (len(body), body)
    with running(Settings(bundle=bundle, data=tmp_path, forwarded_allow_ips=("127.0.0.1",))) as client:
        answer = ask(str(client.base_url), request + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
        assert answer.startswith(b"HTTP/1.1 201 ")
    assert audited(tmp_path) == {"127.0.0.1"}


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
def test_only_trusted_proxies_set_the_client_address(
    bundle: Path, tmp_path: Path, proxies: tuple[str, ...], sent: str, who: str
) -> None:
    with running(Settings(bundle=bundle, data=tmp_path, forwarded_allow_ips=proxies)) as client:
        made = client.post("/v1/galleries", json={"name": "one"}, headers={"X-Forwarded-For": sent})
        assert made.status_code == 201
    assert audited(tmp_path) == {who}


def test_a_proxy_must_be_an_address_or_a_network(bundle: Path, tmp_path: Path) -> None:
    settings = Settings(bundle=bundle, data=tmp_path, forwarded_allow_ips=("10.0.0.1", "*"))
    with pytest.raises(StartupError, match=r"give addresses \(10.0.0.2\) or networks"), running(settings):
        pass


def test_disconnects_and_malformed_bodies_do_not_count_as_server_errors(url: str) -> None:
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


def test_error_responses_do_not_echo_long_input(api: httpx.Client) -> None:
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
