"""The data folder is private to its owner, regardless of the umask and of its previous mode."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.common.served import Served
from service.observability.metrics import Metrics
from service.storage.data_dir import prepare_data_dir
from service.storage.database import Database
from service.storage.galleries import insert_gallery, select_galleries
from service.workers.index_snapshots import Snapshots
from tests.support.bundles import DIM
from tests.support.servers import pan_serve


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """A umask of 0, which removes no permission."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


def test_all_files_are_private_in_a_data_folder_with_mode_0755(launch: Callable[..., Served], tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(0o755)
    for start in range(2):
        server = launch()
        with httpx.Client(base_url=server.url, timeout=30) as http:
            http.post("/v1/galleries", json={"name": "lobby"})
            enrolled = http.post("/v1/galleries/lobby/entries", json={"entries": [{"vector": [1.0] * DIM}]})
            assert enrolled.status_code == 201
            found = modes(data)
            assert {"pan.sqlite3", "pan.sqlite3-wal", "pan.sqlite3-shm", "lock"} <= set(found)
            assert {name: oct(mode) for name, mode in found.items() if mode & 0o077} == {}
        assert server.stop() == 0
        if not start:  # the mode that earlier releases used
            (data / "pan.sqlite3").chmod(0o644)
    log = (tmp_path / "log").read_text()
    assert '"mode":"0755"' in log
    assert "other users can list the data folder" in log
    assert "removed the access of other users to a file" in log


def test_a_command_creates_a_missing_folder_with_mode_0700(tmp_path: Path) -> None:
    made = pan_serve("key", "create", "gate", "--data", str(tmp_path / "new"))
    assert (made.returncode, stat.S_IMODE((tmp_path / "new").stat().st_mode)) == (0, 0o700), made.stderr
    assert modes(tmp_path / "new") == {"pan.sqlite3": 0o600}


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777, 0o702])
@pytest.mark.parametrize("command", ["run", "key"])
def test_a_folder_that_other_users_may_write_to_is_refused_with_a_remedy(
    bundle: Path, tmp_path: Path, command: str, mode: int
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(mode)
    options = {"run": ["--bundle", str(bundle), "--port", "0"], "key": ["create", "gate"]}[command]
    refused = pan_serve(command, *options, "--data", str(data))
    assert refused.returncode == 1
    assert f"(mode {mode:04o})" in refused.stderr
    assert "chmod 700" in refused.stderr
    assert list(data.iterdir()) == []


def test_an_index_snapshot_is_private(tmp_path: Path) -> None:
    prepare_data_dir(tmp_path)
    database = Database(tmp_path / "pan.sqlite3", Metrics())
    database.submit_write(lambda db: insert_gallery(db, "lobby", "", "flat", "f" * 64, 4)).result()
    (row,) = database.submit_read(select_galleries).result()
    Snapshots(tmp_path / "snapshots", database).save(row, {})
    database.close()
    assert modes(tmp_path) == {"pan.sqlite3": 0o600, "snapshots": 0o700, "snapshots/1-1.npz": 0o600}
