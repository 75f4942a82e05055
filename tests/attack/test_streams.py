"""Streams that hold memory: unfinished lines, very many lines, and clients that stop sending."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import urlsplit

import httpx

from benchmarks.common.served import MIB, Served
from tests.attack.conftest import VECTOR, Target

LINE = json.dumps({"vector": VECTOR}).encode() + b"\n"


@contextmanager
def stream(url: str, body: bytes) -> Iterator[socket.socket]:
    """A stream into gallery `g` that sends `body` and then stalls."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=30) as connection:

        def send() -> None:
            with suppress(OSError):  # the server may not read all of it
                connection.sendall(b"%x\r\n%s\r\n" % (len(body), body))

        kind = "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked"
        connection.sendall(
            f"POST /v1/galleries/g/entries/stream HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n\r\n".encode()
        )
        sending = threading.Thread(target=send)
        sending.start()
        try:
            yield connection
        finally:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            sending.join()


def held(api: httpx.Client) -> float:
    metrics = api.get("/metrics").text.splitlines()
    return float(next(line for line in metrics if line.startswith("pan_body_bytes ")).split()[1])


def test_unfinished_lines_do_not_block_other_requests(launch: Callable[..., Served]) -> None:
    server = launch("--max-bodies-mib", "64")
    with httpx.Client(base_url=server.url, timeout=30) as api, ExitStack() as stack:
        api.post("/v1/galleries", json={"name": "g"})
        for _ in range(6):
            stack.enter_context(stream(server.url, b"[" * (7 * MIB)))
        while held(api) < 16 * MIB:
            time.sleep(0.01)
        assert held(api) <= 32 * MIB
        plain = {"entries": [{"vector": VECTOR, "nothing": "x" * (20 * MIB)}]}
        assert api.post("/v1/galleries/g/entries", json=plain).status_code == 422
        headers = {"Content-Type": "application/x-ndjson"}
        answer = api.post("/v1/galleries/g/entries/stream", content=LINE * 2000, headers=headers)
        assert json.loads(answer.text.splitlines()[-1]) == {"enrolled": 2000, "failed": 0}


def test_millions_of_lines_use_bounded_memory(target: Target) -> None:
    before = target.server.resident()
    target.reset_peak()
    with stream(target.server.url, b"ab\n" * (8 * MIB // 3)) as connection:
        connection.recv(1)
    assert target.peak() - before < 50 * MIB
