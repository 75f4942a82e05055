"""Lines of streams, and a stream over a socket of its own."""

import base64
import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np

from pan_reid import Client
from tests.support.bundles import DIM
from tests.support.pictures import png

NDJSON = {"Content-Type": "application/x-ndjson"}


def vector(n: int) -> str:
    return base64.b64encode(np.random.default_rng(n).normal(size=DIM).astype("<f4").tobytes()).decode()


def ready(n: int) -> bytes:
    return json.dumps({"vector": vector(n), "person_id": f"p{n}"}).encode()


def picture(n: int) -> bytes:
    return json.dumps({"image": base64.b64encode(png(n)).decode(), "person_id": f"p{n}"}).encode()


def post(api: httpx.Client, gallery: str, lines: Iterable[bytes], **headers: str) -> list[dict[str, Any]]:
    body = (line + b"\n" for line in lines)
    answer = api.post(f"/v1/galleries/{gallery}/entries/stream", content=body, headers=NDJSON | headers)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/x-ndjson"), answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def persons(api: httpx.Client, gallery: str) -> dict[int, str]:
    with Client(str(api.base_url)) as client:
        return {entry.entry_id: entry.person_id or "" for entry in client.entries(gallery)}


class Wire:
    """A stream on a raw socket, so that chunks are sent and lines received at the same time."""

    def __init__(self, url: str, gallery: str, key: str | None = None) -> None:
        where = urlsplit(url)
        self._socket = socket.create_connection((where.hostname, where.port), timeout=60)
        path = f"/v1/galleries/{gallery}/entries/stream"
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        head += f"Idempotency-Key: {key}\r\n" if key else ""
        self._socket.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        self._answer = self._socket.makefile("rb")
        self._begun = False

    def send(self, data: bytes) -> None:
        self._socket.sendall(b"%x\r\n%s\r\n" % (len(data), data))

    def line(self) -> dict[str, Any]:
        if not self._begun:
            assert b" 200 " in self._answer.readline()
            while self._answer.readline().strip():
                pass
            self._begun = True
            self._rest = b""
        while b"\n" not in self._rest:
            size = int(self._answer.readline(), 16)
            self._rest += self._answer.read(size)
            self._answer.readline()
        line, _, self._rest = self._rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        self._answer.close()
        self._socket.close()


@contextmanager
def wire(url: str, gallery: str, key: str | None = None) -> Iterator[Wire]:
    stream = Wire(url, gallery, key)
    try:
        yield stream
    finally:
        stream.close()
