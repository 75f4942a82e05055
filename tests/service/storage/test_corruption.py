"""Corrupted database files: the service recovers what it can, or refuses to start and says how to recover."""

import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.common.served import Served
from tests.support.bundles import DIM
from tests.support.servers import pan_serve

Launch = Callable[..., Served]
ENROL = "/v1/galleries/lobby/entries"


def unit(number: int) -> np.ndarray:
    vector = np.random.default_rng(number).normal(size=DIM)
    return (vector / np.linalg.norm(vector)).astype("<f4")


def enrol(http: httpx.Client, requests: int, size: int = 10) -> None:
    """Enrol the vectors 1, 2, 3, ... as entries with these ids."""
    http.post("/v1/galleries", json={"name": "lobby"})
    for first in range(1, requests * size, size):
        entries = [{"vector": unit(number).tolist()} for number in range(first, first + size)]
        assert http.post(ENROL, json={"entries": entries}).status_code == 201


def refusal(bundle: Path, data: Path) -> str:
    """The error of `pan-serve run`, which must not start."""
    refused = pan_serve("run", "--bundle", str(bundle), "--data", str(data), "--port", "0")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    return refused.stderr


@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_a_corrupted_wal_is_recovered_up_to_the_last_intact_request(
    launch: Launch, tmp_path: Path, damage: str
) -> None:
    server = launch()
    with httpx.Client(base_url=server.url, timeout=30) as http:
        enrol(http, 12)
    server.stop(signal.SIGKILL)  # so that the log is not merged into the file
    log = tmp_path / "data" / "pan.sqlite3-wal"
    content = log.read_bytes()
    middle = len(content) // 2 + 777
    log.write_bytes(content[:middle] + (b"\xa5" * (len(content) - middle) if damage == "garbage" else b""))
    server = launch()
    with httpx.Client(base_url=server.url, timeout=30) as http:
        left = [entry["entry_id"] for entry in http.get(ENROL, params={"limit": 1000}).json()["entries"]]
        assert left == list(range(1, len(left) + 1))
        assert len(left) % 10 == 0
        assert 0 < len(left) < 120
        hits = http.post("/v1/galleries/lobby/search", json={"vector": [1.0] * DIM, "top_k": 500}).json()["hits"]
        assert {hit["entry_id"] for hit in hits} == set(left)
        again = http.post(ENROL, json={"entries": [{"vector": [1.0] * DIM}]})
        assert again.json()["results"][0]["entry_id"] == len(left) + 1
    assert server.stop() == 0
    with sqlite3.connect(tmp_path / "data" / "pan.sqlite3") as database:
        assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    database.close()


def test_a_corrupted_page_stops_the_startup_with_a_remedy(launch: Launch, bundle: Path, tmp_path: Path) -> None:
    server = launch()
    with httpx.Client(base_url=server.url, timeout=30) as http:
        enrol(http, 12)
    assert server.stop() == 0
    path = tmp_path / "data" / "pan.sqlite3"
    whole = path.read_bytes()
    vector = whole.index(unit(77).tobytes())
    size = int.from_bytes(whole[16:18])  # of a page
    page = vector // size * size
    path.write_bytes(whole[:page] + b"\xff" * size + whole[page + size :])
    damaged = refusal(bundle, path.parent)
    assert "the database is damaged" in damaged
    assert "restore a backup" in damaged
    path.write_bytes(whole[: len(whole) // 2])
    assert "restore a backup" in refusal(bundle, path.parent)
    path.write_bytes(whole)  # the backup
    server = launch()
    assert httpx.get(f"{server.url}{ENROL}", params={"limit": 1000}).json()["entries"][-1]["entry_id"] == 120
