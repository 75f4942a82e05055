"""`pan-serve vacuum` returns the space of deleted entries to the disk, and no file contains them."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.common.served import Served
from pan_reid import Client, Crop
from pan_reid.schemas import EntryInfo
from service.storage.backup import BackupError, vacuum
from tests.service.galleries.test_kept_crops import anywhere
from tests.support.pictures import encode, person, png
from tests.support.servers import pan_serve

PEOPLE = 150


def test_the_database_shrinks_and_no_deleted_entry_remains(launch: Callable[..., Served], tmp_path: Path) -> None:
    data = tmp_path / "data"
    server = launch()
    with Client(server.url) as client:
        client.create_gallery("g", keep_crops=True)
        pictures = [encode(person(n)) for n in range(PEOPLE)]
        client.enrol("g", [Crop(one, EntryInfo(person_id=f"p{n}")) for n, one in enumerate(pictures)])
        gone = range(10, PEOPLE)
        kept = [client.image("g", n + 1) for n in gone]
        vectors = client.embed([pictures[n] for n in gone])
        for n in gone:
            client.delete_entry("g", n + 1)  # one at a time, which leaves copies in the write-ahead log
        refused = pan_serve("vacuum", "--data", str(data))
        assert (refused.returncode, "another pan-serve uses" in refused.stderr) == (1, True), refused.stderr
    server.stop(signal.SIGKILL)
    with (data / "pan.sqlite3-wal").open("rb") as log:
        assert len(log.read()) > 0
    done = pan_serve("vacuum", "--data", str(data))
    assert (done.returncode, "MiB before" in done.stdout) == (0, True), done.stderr
    assert (data / "pan.sqlite3").stat().st_size < len(b"".join(kept)) / 2
    held = b"".join(path.read_bytes() for path in data.iterdir() if path.is_file())
    assert not any(anywhere(data, one) for one in kept)
    assert not any(vector.tobytes() in held for vector in vectors)
    with Client(launch().url) as client:
        assert [entry.person_id for entry in client.entries("g")] == [f"p{n}" for n in range(10)]
        assert [hit.person_id for hit in client.search("g", png(3), top_k=1).hits or []] == ["p3"]
        assert anywhere(data, client.image("g", 4))


def test_without_disk_space_or_a_database_vacuum_fails_and_changes_nothing(
    launch: Callable[..., Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch().stop()
    before = (tmp_path / "data" / "pan.sqlite3").read_bytes()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(BackupError, match="free some space, or move the galleries"):
        vacuum(tmp_path / "data")
    assert (tmp_path / "data" / "pan.sqlite3").read_bytes() == before
    nowhere = pan_serve("vacuum", "--data", str(tmp_path))
    assert (nowhere.returncode, "set --data to the data folder" in nowhere.stderr) == (1, True)
