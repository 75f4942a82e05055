"""Retries of both clients, against a server that returns prepared statuses."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from pan_reid import ApiError, AsyncClient, Client, ClientError, Crop
from pan_reid.request import RetryPolicy


class _Handler(BaseHTTPRequestHandler):
    """Returns the statuses of a list, and records idempotency keys. Status 0 closes the connection."""

    statuses: list[int]
    keys: list[str | None]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.keys.append(self.headers["Idempotency-Key"])
        status = self.statuses.pop(0)
        if not status:
            self.close_connection = True
            return
        fine = b'{"enrolled": 1, "failed": 0, "results": []}'
        wrong = b'{"code": "overloaded", "detail": "full", "request_id": "r1"}'
        body = fine if status == 201 else wrong
        self.send_response(status)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def faulty() -> Iterator[str]:
    _Handler.statuses, _Handler.keys = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _enrol(kind: type[Client] | type[AsyncClient], url: str, retries: int) -> int:
    crops = [Crop(b"x")]
    if kind is Client:
        with Client(url, retries=retries) as client:
            return client.enrol("hall", crops).enrolled

    async def enrol() -> int:
        async with AsyncClient(url, retries=retries) as client:
            return (await client.enrol("hall", crops)).enrolled

    return asyncio.run(enrol())


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_both_clients_retry_with_the_same_key_and_raise_the_same_errors(
    kind: type[Client] | type[AsyncClient], faulty: str
) -> None:
    _Handler.statuses = [429, 0, 503, 201]
    assert _enrol(kind, faulty, retries=5) == 1
    assert len(_Handler.keys) == 4
    assert len(set(_Handler.keys)) == 1
    _Handler.statuses = [429, 429, 429]
    with pytest.raises(ApiError, match=r"full \(429 overloaded, request r1\)") as caught:
        _enrol(kind, faulty, retries=2)
    assert (caught.value.status, _Handler.statuses) == (429, [])
    _Handler.statuses = [413]
    with pytest.raises(ApiError):
        _enrol(kind, faulty, retries=5)
    with httpx.Client() as probe:
        free = str(probe.build_request("GET", faulty).url.copy_with(port=1))
    with pytest.raises(ClientError, match=r"no answer from http://127.0.0.1:1 \(ConnectError: .*is `pan-serve run`"):
        _enrol(kind, free, retries=0)


def test_a_change_without_a_key_is_not_sent_twice(faulty: str) -> None:
    _Handler.statuses = [0, 201]
    with Client(faulty) as client, pytest.raises(ClientError, match="no answer"):
        client.create_gallery("hall")
    assert len(_Handler.keys) == 1


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("86400", 60, 60),
        pytest.param(format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True), 60, 60, id="tomorrow"),
        pytest.param(format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True), 0, 0, id="yesterday"),
        ("soon", 0.25, 0.25),
        ("-5", 0.25, 0.25),
        ("nan", 0.25, 0.25),
        ("", 0.25, 0.25),
    ],
)
def test_retry_after_has_seconds_or_a_date(header: str, least: float, most: float) -> None:
    answer = httpx.Response(429, headers={"Retry-After": header})
    assert least <= RetryPolicy(1).after_problem(0, answer) <= most


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "", "localhost", "file:///etc", "http://", "http://h:99999999"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_accepts_only_an_http_address(kind: type[Client] | type[AsyncClient], url: str) -> None:
    with pytest.raises(ClientError, match="is not the address of a service"):
        kind(url)
