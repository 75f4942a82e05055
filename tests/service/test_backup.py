"""Backup and restore through the real commands, beside a real server."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.backup import BackupError, back_up, restore
from service.client import Client, Crop
from service.database import Database
from service.errors import StartupError
from service.metrics import Metrics
from service.schemas import EntryInfo
from tests.service.conftest import pan_serve
from tests.service.pictures import png


def test_a_backup_beside_a_busy_service_is_one_moment_and_restores_what_was_there(
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
        restore(copy, data, replace=True)
    server.stop()
    with pytest.raises(BackupError, match="or --force to give up"):
        restore(copy, data, replace=False)
    back = pan_serve("restore", str(copy), "--data", str(data), "--bundle", str(bundle), "--force")
    assert back.returncode == 0, back.stderr
    server = launch()
    with Client(server.url) as client:
        assert client.gallery("lobby").purpose == "a test"
        late = [entry for entry in client.entries("lobby") if entry.person_id == "late"]
        assert len(late) % 4 == 0  # requests are in it whole
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
            db.execute("INSERT INTO vectors VALUES (?, ?)", (entry + 1, b"\0" * 16))

    made.submit_write(fill).result()
    made.close()
    return data


def damage_vector(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE vectors SET vector = x'00' WHERE entry_id = 2")
    db.close()


def damage_page(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(int.from_bytes(stream.read(18)[16:]))  # the size of a page, where the second begins
        stream.write(b"\xff" * 2000)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_vector, "1 entries without their vector"),
        (damage_page, "damaged|malformed"),
        (lambda path: path.write_bytes(b"no database at all" * 999), "not a database"),
        (lambda path: path.write_bytes(b""), "schema version 0"),
    ],
)
def test_what_is_damaged_is_neither_backed_up_nor_restored_and_replaces_nothing(
    tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    good, bad = database(tmp_path / "good"), database(tmp_path / "bad")
    before = (good / "pan.sqlite3").read_bytes()
    damage(bad / "pan.sqlite3")
    with pytest.raises(BackupError, match=says):
        restore(bad / "pan.sqlite3", good, replace=True)
    assert (good / "pan.sqlite3").read_bytes() == before
    with pytest.raises(BackupError):
        back_up(bad, tmp_path / "copy")
    assert not [path for folder in (tmp_path, good, bad) for path in folder.iterdir() if "copy" in path.name]


def test_the_log_of_the_database_that_is_given_up_is_not_played_into_the_restored_one(tmp_path: Path) -> None:
    data, copy = database(tmp_path / "data"), tmp_path / "copy"
    assert [(one.name, one.entries) for one in back_up(data, copy)] == [("g", 3)]
    killed = sqlite3.connect(data / "pan.sqlite3")  # as a service that was killed leaves its log behind
    killed.execute("PRAGMA foreign_keys = ON")
    killed.execute("DELETE FROM galleries")
    killed.commit()
    log = (data / "pan.sqlite3-wal").read_bytes()
    killed.close()
    (data / "pan.sqlite3-wal").write_bytes(log)
    restore(copy, data, replace=True)
    again = Database(data / "pan.sqlite3", Metrics())
    assert again.submit_read(lambda db: db.execute("SELECT count(*) FROM entries").fetchone()[0]).result() == 3
    again.close()


def test_a_backup_never_overwrites_and_a_gallery_of_another_model_is_pointed_out(tmp_path: Path) -> None:
    data, copy = database(tmp_path / "data"), tmp_path / "copy"
    back_up(data, copy)
    with pytest.raises(BackupError, match="give another name"):
        back_up(data, copy)
    with pytest.raises(BackupError, match="give the --data"):
        back_up(tmp_path, tmp_path / "other")
    new = tmp_path / "new"
    with pytest.raises(BackupError, match="gallery g was enrolled with model aaaaaaaaaaaa"):
        restore(copy, new, replace=False, fingerprint="b" * 64)
    assert not (new / "pan.sqlite3").exists()
    restore(copy, new, replace=False, fingerprint="a" * 64)
    assert (new / "pan.sqlite3").exists()
