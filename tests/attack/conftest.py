"""A real server process under attack. Each module checks at its end that the server is healthy."""

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks.common.served import MIB, Served
from tests.support.bundles import DIM

VECTOR = [1.0] * DIM


@dataclass(frozen=True)
class Target:
    """A server with the gallery `g` of 20 entries, and a client."""

    server: Served
    http: httpx.Client

    def post(self, path: str, content: bytes, kind: str = "application/json", **headers: str) -> httpx.Response:
        return self.http.post(path, content=content, headers={"Content-Type": kind, **headers})

    def raw(self, request: bytes) -> bytes:
        """Send bytes, and return everything that the server sends until it closes the connection."""
        where = urlsplit(self.server.url)
        answer = b""
        with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
            connection.sendall(request)
            while part := connection.recv(2**16):
                answer += part
        return answer

    def reset_peak(self) -> None:
        """Reset the peak memory of the process (VmHWM)."""
        Path(f"/proc/{self.server.pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """The peak memory in bytes since `reset_peak`."""
        status = Path(f"/proc/{self.server.pid}/status").read_text()
        match = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert match is not None
        return int(match[1]) * 1024


@pytest.fixture(scope="module")
def target(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """At the end the server must be ready, with all its entries, without a 5xx response or a logged error."""
    folder = tmp_path_factory.mktemp("target")
    server = Served(bundle, folder / "data", folder / "log")
    try:
        with httpx.Client(base_url=server.url, timeout=60) as http:
            assert http.post("/v1/galleries", json={"name": "g"}).status_code == 201
            entries = [{"vector": VECTOR, "person_id": f"p{n}", "attributes": {"n": n}} for n in range(20)]
            assert http.post("/v1/galleries/g/entries", json={"entries": entries}).status_code == 201
            yield Target(server, http)
            assert http.get("/readyz").status_code == 200
            assert http.get("/v1/galleries/g").json()["entries"] == 20
            assert not re.search(r'^pan_requests_total\{.*status="5', http.get("/metrics").text, re.MULTILINE)
        assert server.stop() == 0
    finally:
        if server.running:
            server.stop(9)
    assert logged_errors(folder / "log") == []


def logged_errors(log: Path) -> list[dict[str, Any]]:
    """The lines of a log with an error or a traceback."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line for line in lines if line["level"] in ("error", "critical") or "traceback" in line]


def problem(answer: httpx.Response | bytes) -> dict[str, Any]:
    """The problem document of a response, which must be a short one."""
    body = answer.content if isinstance(answer, httpx.Response) else answer.partition(b"\r\n\r\n")[2]
    assert len(body) < MIB // 32
    found: dict[str, Any] = json.loads(body)
    assert found["type"].startswith("urn:pan-reid:problem:")
    return found


@pytest.fixture(scope="module")
def url(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server with short timeouts."""
    folder = tmp_path_factory.mktemp("connections")
    times = ("--header-timeout", "1", "--idle-timeout", "1", "--request-timeout", "2")
    server = Served(bundle, folder / "data", folder / "log", *times)
    yield server.url
    assert server.stop() == 0
    assert '"error"' not in (folder / "log").read_text()
