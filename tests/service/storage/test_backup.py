"""`pan-serve backup` and `restore`, with a running server."""

import errno
import itertools
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pan_reid import Client, Crop
from pan_reid.schemas import EntryInfo
from service.core.errors import StartupError
from service.observability.metrics import Metrics
from service.storage.backup import BackupError, create_backup, restore_backup
from service.storage.database import Database
from tests.support.pictures import png
from tests.support.servers import pan_serve


def test_a_backup_during_writes_is_a_consistent_snapshot_that_restores(
    launch: Callable[..., Any], bundle: Path, tmp_path: Path
) -> None:
    server, data, copy = launch(), tmp_path / "data", tmp_path / "copy.sqlite3"
    with Client(server.url) as client:
        client.create_gallery("lobby", "a test")
        client.enrol("lobby", [Crop(png(n), EntryInfo(person_id=f"p{n}")) for n in range(20)])
        client.erase_person("lobby", "p3")
        erased = client.embed([png(3)])[0].astype("<f4").tobytes()
        hits = client.search("lobby", png(7, 1), top_k=100).hits
        enough = threading.Event()

        def enrol() -> None:
            while not enough.is_set():
                client.enrol("lobby", [Crop(png(100), EntryInfo(person_id="late"))] * 4)

        thread = threading.Thread(target=enrol)
        thread.start()
        try:
            made = pan_serve("backup", str(copy), "--data", str(data))
        finally:
            enough.set()
            thread.join()
        assert (made.returncode, "lobby" in made.stdout) == (0, True), made.stderr
    assert copy.stat().st_mode & 0o077 == 0
    assert erased not in copy.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if "copy" in path.name] == ["copy.sqlite3"]

    with pytest.raises(StartupError, match="another pan-serve uses"):
        restore_backup(copy, data, replace=True)
    server.stop()
    with pytest.raises(BackupError, match="or --force to replace"):
        restore_backup(copy, data, replace=False)
    back = pan_serve("restore", str(copy), "--data", str(data), "--bundle", str(bundle), "--force")
    assert back.returncode == 0, back.stderr
    server = launch()
    with Client(server.url) as client:
        assert client.gallery("lobby").purpose == "a test"
        late = [entry for entry in client.entries("lobby") if entry.person_id == "late"]
        assert len(late) % 4 == 0  # each request is in it completely or not at all
        for entry in late:
            client.delete_entry("lobby", entry.entry_id)
        assert client.search("lobby", png(7, 1), top_k=100).hits == hits


def database(data: Path, vectors: int = 3) -> Path:
    data.mkdir()
    made = Database(data / "pan.sqlite3", Metrics())

    def fill(db: sqlite3.Connection) -> None:
        db.execute(
            "INSERT INTO galleries (name, purpose, index_kind, fingerprint, dim, created_at)"
            " VALUES ('g', '', 'flat', ?, 4, 0)",
            ("a" * 64,),
        )
        for entry in range(vectors):
            db.execute("INSERT INTO entries (gallery_id, attributes, created_at) VALUES (1, '{}', 0)")
            db.execute("INSERT INTO vectors VALUES (?, ?)", (entry + 1, np.eye(4, dtype="<f4")[entry].tobytes()))

    made.submit_write(fill).result()
    made.close()
    return data


def damage_page(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(int.from_bytes(stream.read(18)[16:]))  # the page size is the offset of the second page
        stream.write(b"\xff" * 2000)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_page, "damaged|malformed"),
        (lambda path: path.write_bytes(b"not a database" * 999), "not a database"),
        (lambda path: path.write_bytes(b""), "schema version 0"),
        (lambda path: Path(f"{path}-wal").write_bytes(b"x"), "its latest changes are in pan.sqlite3-wal"),
    ],
)
def test_a_damaged_database_is_refused_by_backup_and_restore_and_nothing_changes(
    tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    good, bad = database(tmp_path / "good"), database(tmp_path / "bad")
    before = (good / "pan.sqlite3").read_bytes()
    damage(bad / "pan.sqlite3")
    with pytest.raises(BackupError, match=says) as refused:
        restore_backup(bad / "pan.sqlite3", good, replace=True)
    assert str(bad / "pan.sqlite3") in str(refused.value)  # the message names the damaged file, not the target
    assert str(good) not in str(refused.value)
    assert (good / "pan.sqlite3").read_bytes() == before
    if "latest changes" not in says:
        with pytest.raises(BackupError, match=str(bad / "pan.sqlite3")):
            create_backup(bad, tmp_path / "copy")
    assert not [path for folder in (tmp_path, good, bad) for path in folder.iterdir() if "copy" in path.name]


def folder_with_wal(data: Path) -> Path:
    """The data folder of a killed service with 3 entries: the deletion of entry 2 is only in the write-ahead log."""
    writer = sqlite3.connect(database(data) / "pan.sqlite3")
    writer.execute("PRAGMA foreign_keys = ON")
    writer.execute("DELETE FROM entries WHERE id = 2")
    writer.commit()
    wal = (data / "pan.sqlite3-wal").read_bytes()
    assert wal
    content = (data / "pan.sqlite3").read_bytes()
    writer.close()
    (data / "pan.sqlite3").write_bytes(content)
    (data / "pan.sqlite3-wal").write_bytes(wal)
    return data


def entries(data: Path) -> list[int]:
    again = Database(data / "pan.sqlite3", Metrics())
    try:
        found = again.submit_read(lambda db: [row[0] for row in db.execute("SELECT id FROM entries ORDER BY id")])
        return found.result()
    finally:
        again.close()


def test_the_write_ahead_log_of_the_replaced_database_is_not_applied_to_the_restored_one(tmp_path: Path) -> None:
    data, copy = folder_with_wal(tmp_path / "data"), tmp_path / "copy"
    assert [(one.name, one.entries) for one in create_backup(database(tmp_path / "other"), copy)] == [("g", 3)]
    restore_backup(copy, data, replace=True)
    assert entries(data) == [1, 2, 3]


def interrupted(work: Callable[[], object], at: int, how: str) -> bool:
    """Run `work` in a child process, in which step number `at`, counted from 0, raises or kills the process.

    Returns whether this step was reached. A step is a call that changes a file: open for writing, rename, remove, copy,
    fsync, or a connection to a database.
    """
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
    steps = itertools.count()

    def step() -> None:
        if next(steps) == at:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.EIO, "I/O error")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        written = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if written or event in {"os.rename", "os.remove", "os.truncate", "shutil.copyfile", "sqlite3.connect"}:
            step()

    def fsync(handle: int) -> None:
        step()
        real_fsync(handle)

    real_fsync, os.fsync = os.fsync, fsync
    try:
        sys.addaudithook(hook)
        work()
    except (BackupError, StartupError, OSError):
        pass
    finally:
        os._exit(0 if next(steps) <= at else 1)


@pytest.mark.parametrize("how", ["killed", "fails"])
def test_a_restore_interrupted_at_any_step_loses_no_acknowledged_write(tmp_path: Path, how: str) -> None:
    copy = tmp_path / "copy"
    create_backup(database(tmp_path / "other", vectors=2), copy)
    seen, steps = [], 0
    while True:
        data = folder_with_wal(tmp_path / f"data{steps}")
        reached = interrupted(lambda data=data: restore_backup(copy, data, replace=True), steps, how)  # type: ignore[misc]
        seen.append(entries(data))
        if not reached:
            break
        steps += 1
    assert steps > 6
    assert seen[0] == [1, 3]
    assert seen[-1] == [1, 2]
    assert seen == sorted(seen, reverse=True)  # first the old database with its log, then the restored one
    assert {tuple(found) for found in seen} == {(1, 3), (1, 2)}  # never [1, 2, 3], the old database without its log


def test_a_write_ahead_log_that_cannot_be_merged_is_kept_and_named_in_the_error(tmp_path: Path) -> None:
    data, copy = folder_with_wal(tmp_path / "data"), tmp_path / "copy"
    create_backup(database(tmp_path / "other"), copy)
    wal = (data / "pan.sqlite3-wal").read_bytes()
    (data / "pan.sqlite3").unlink()
    with pytest.raises(BackupError, match="holds changes, but its database is missing"):
        restore_backup(copy, data, replace=True)
    (data / "pan.sqlite3").write_bytes(b"not a database" * 999)
    with pytest.raises(BackupError, match="cannot be merged"):
        restore_backup(copy, data, replace=True)
    assert (data / "pan.sqlite3-wal").read_bytes() == wal


def test_a_backup_overwrites_no_file_and_restore_refuses_galleries_of_another_model(tmp_path: Path) -> None:
    data, copy = database(tmp_path / "data"), tmp_path / "copy"
    create_backup(data, copy)
    with pytest.raises(BackupError, match="give another name"):
        create_backup(data, copy)
    with pytest.raises(BackupError, match="set --data to the data folder"):
        create_backup(tmp_path, tmp_path / "other")
    new = tmp_path / "new"
    with pytest.raises(BackupError, match="gallery g was enrolled with model aaaaaaaaaaaa"):
        restore_backup(copy, new, replace=False, fingerprint="b" * 64)
    assert not (new / "pan.sqlite3").exists()
    restore_backup(copy, new, replace=False, fingerprint="a" * 64)
    assert (new / "pan.sqlite3").exists()
