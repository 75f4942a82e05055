"""A full disk and a read-only disk, on a file system that the test mounts. It needs root.

Without root, `test_faults` covers the same with RLIMIT_FSIZE, which stops the files of a process from growing.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.common.served import Served
from tests.support.bundles import DIM
from tests.support.servers import pan_serve

ENROL = "/v1/galleries/lobby/entries"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """The data folder of `launch`, on a file system of 32 MiB."""
    folder = tmp_path / "data"
    folder.mkdir()
    mount(folder, "size=32m,mode=0700")
    yield folder
    subprocess.run(["umount", folder], check=True)


def mount(folder: Path, options: str) -> None:
    """Mount a tmpfs with these options, or remount it."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root; test_faults covers this with RLIMIT_FSIZE")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting fails here ({done.stderr.strip()}); test_faults covers this with RLIMIT_FSIZE")


def batch(number: int) -> dict[str, object]:
    vectors = np.random.default_rng(number).normal(size=(64, DIM))
    return {"entries": [{"vector": vector.tolist(), "person_id": f"p{number}"} for vector in vectors]}


def ids(answer: httpx.Response) -> set[int]:
    return {result["entry_id"] for result in answer.json()["results"]}


def listed(http: httpx.Client) -> set[int]:
    page = http.get(ENROL, params={"limit": 1000}).json()
    assert page["next_cursor"] is None
    return {entry["entry_id"] for entry in page["entries"]}


def found(http: httpx.Client) -> set[int]:
    answer = http.post("/v1/galleries/lobby/search", json={"vector": [1.0] * DIM, "top_k": 5000})
    return {hit["entry_id"] for hit in answer.json()["hits"]}


def test_a_full_disk_answers_507_loses_nothing_and_recovers(disk: Path, launch: Callable[..., Served]) -> None:
    server = launch()
    with httpx.Client(base_url=server.url, timeout=60) as http:
        http.post("/v1/galleries", json={"name": "lobby"})
        acknowledged = ids(http.post(ENROL, json=batch(0)))
        assert http.get("/readyz").status_code == 200
        filesystem = os.statvfs(disk)
        (disk / "filler").write_bytes(bytes(filesystem.f_bavail * filesystem.f_frsize - 2**16))
        for number in range(1, 20):
            answer = http.post(ENROL, json=batch(number))
            if answer.status_code != 201:
                break
            acknowledged |= ids(answer)
        assert (answer.status_code, answer.json()["code"]) == (507, "storage-full")
        assert "free some space" in answer.json()["detail"]
        not_ready = http.get("/readyz")
        assert (not_ready.status_code, not_ready.json()["code"]) == (503, "not-ready")
        assert "free some space" in not_ready.json()["detail"]
        assert http.get("/healthz").status_code == 200
        assert listed(http) == acknowledged
        (disk / "filler").unlink()
        assert http.get("/readyz").status_code == 200
        acknowledged |= ids(http.post(ENROL, json=batch(100)))
        assert http.delete("/v1/galleries/lobby/persons?person_id=p0").json()["entries"] == 64
        acknowledged -= set(range(1, 65))
        assert listed(http) == found(http) == acknowledged
    server.stop(signal.SIGKILL)
    server = launch()
    with httpx.Client(base_url=server.url, timeout=60) as http:
        assert listed(http) == found(http) == acknowledged
    assert server.stop() == 0


def test_a_read_only_disk_stops_the_startup_with_a_remedy(
    disk: Path, bundle: Path, launch: Callable[..., Served]
) -> None:
    assert launch().stop() == 0
    mount(disk, "remount,ro")
    refused = pan_serve("run", "--bundle", str(bundle), "--data", str(disk), "--port", "0")
    assert refused.returncode == 1
    assert "Read-only file system" in refused.stderr
    assert "give another --data" in refused.stderr
    assert "Traceback" not in refused.stderr
