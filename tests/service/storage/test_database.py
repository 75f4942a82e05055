"""The database: durable writes, isolated failures, an append-only audit, and schema upgrades."""

import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from service.auth.keys import create_key
from service.core.errors import StartupError, StorageFailed
from service.core.models import NewEntry
from service.observability.metrics import Metrics
from service.storage import entries as records
from service.storage import galleries as gallery_records
from service.storage.audit import insert_audit
from service.storage.database import Database
from service.storage.migrations import MIGRATIONS, SCHEMA_VERSION


def opened(path: Path) -> Database:
    return Database(path / "pan.sqlite3", Metrics())


def create(name: str):
    return lambda db: gallery_records.insert_gallery(db, name, "", "flat", "0" * 64, 4)


def names(database: Database) -> list[str]:
    return [row.name for row in database.submit_read(gallery_records.select_galleries).result()]


def test_an_acknowledged_write_is_there_after_reopening(tmp_path: Path) -> None:
    database = opened(tmp_path)
    database.submit_write(create("a")).result()
    assert names(database) == ["a"]
    database.close()
    again = opened(tmp_path)
    assert names(again) == ["a"]
    again.close()


def test_a_failed_write_does_not_roll_back_the_others_of_its_transaction(tmp_path: Path) -> None:
    database = opened(tmp_path)

    def half(db: sqlite3.Connection) -> None:
        create("half")(db)
        raise ValueError("after the first statement")

    futures = [database.submit_write(apply) for apply in (create("a"), half, create("b"))]
    assert futures[0].result().name == "a"
    with pytest.raises(ValueError, match="after the first"):
        futures[1].result()
    assert futures[2].result().name == "b"
    assert names(database) == ["a", "b"]
    database.close()


def test_on_commit_is_called_in_the_order_of_the_commits(tmp_path: Path) -> None:
    database, order = opened(tmp_path), []
    futures = [database.submit_write(create(f"g{n:02}"), lambda row: order.append(row.name)) for n in range(50)]
    for future in futures:
        future.result()
    assert order == [f"g{n:02}" for n in range(50)]
    database.close()


def test_close_finishes_the_queued_writes(tmp_path: Path) -> None:
    database = opened(tmp_path)
    futures = [database.submit_write(create(f"g{n:02}")) for n in range(200)]
    database.close()
    assert all(future.done() for future in futures)
    again = opened(tmp_path)
    assert len(names(again)) == 200
    again.close()


def test_close_waits_for_post_commit_work_and_its_errors_reach_the_caller(tmp_path: Path) -> None:
    database, go_on, order = opened(tmp_path), threading.Event(), []
    executor = database.post_commit_executor()

    def update_memory(row: gallery_records.GalleryRow) -> None:
        assert go_on.wait(60)
        order.append(row.name)
        if row.name == "b":
            raise MemoryError("out of memory")

    futures = [
        database.submit_write(create(name), lambda row: executor.submit(lambda: update_memory(row)))
        for name in ("a", "b", "c")
    ]
    assert database.submit_write(create("d")).result().name == "d"  # does not wait for them
    assert not any(future.done() for future in futures)
    closing = threading.Thread(target=database.close)
    closing.start()
    go_on.set()
    closing.join()
    assert order == ["a", "b", "c"]
    assert futures[0].result().name == "a"
    with pytest.raises(MemoryError, match="out of memory"):
        futures[1].result()
    assert futures[2].result().name == "c"


def test_the_writer_survives_a_database_error_and_reports_it_until_a_write_succeeds(tmp_path: Path) -> None:
    database = opened(tmp_path)
    with pytest.raises(StorageFailed, match="nothing was written"):
        database.submit_write(lambda db: db.execute("INSERT INTO nowhere VALUES (1)")).result()
    assert database.last_write_failed
    database.submit_write(create("a")).result()
    assert not database.last_write_failed
    database.close()


def test_readers_cannot_write(tmp_path: Path) -> None:
    database = opened(tmp_path)
    with pytest.raises(StorageFailed, match="readonly"):
        database.submit_read(create("a")).result()
    database.close()


def test_the_audit_is_append_only(tmp_path: Path) -> None:
    database = opened(tmp_path)
    database.submit_write(lambda db: insert_audit(db, "me", "search", "g", 1)).result()
    for statement in ("DELETE FROM audit", "UPDATE audit SET who = 'you'"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            database.submit_write(lambda db, statement=statement: db.execute(statement)).result()
    database.close()


def test_a_file_of_a_later_schema_version_or_another_format_is_refused_unchanged(tmp_path: Path) -> None:
    newer = sqlite3.connect(tmp_path / "pan.sqlite3")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(StartupError, match="schema version 99"):
        opened(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "pan.sqlite3").write_bytes(b"something else entirely" * 100)
    with pytest.raises(StartupError, match="restore a backup"):
        opened(other)
    assert (other / "pan.sqlite3").read_bytes() == b"something else entirely" * 100


def test_deleted_vectors_are_overwritten_on_disk(tmp_path: Path) -> None:
    database = opened(tmp_path)
    row = database.submit_write(create("a")).result()
    vector = np.array([[0.1, 0.3, 0.3, 0.9]], np.float32)
    ids = database.submit_write(lambda db: records.insert_entries(db, row.id, [NewEntry("ann")], vector)).result()
    database.close()
    path = tmp_path / "pan.sqlite3"
    assert vector.tobytes() in path.read_bytes()
    database = opened(tmp_path)
    database.submit_write(lambda db: records.delete_entry(db, row.id, ids[0])).result()
    database.close()
    assert vector.tobytes() not in path.read_bytes()


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_a_database_of_an_earlier_release_is_upgraded(tmp_path: Path, version: int) -> None:
    path = tmp_path / "pan.sqlite3"
    with sqlite3.connect(path) as db:
        db.executescript(f"{';'.join(MIGRATIONS[:version])}; PRAGMA user_version = {version}")
        db.execute(
            "INSERT INTO galleries (id, name, purpose, index_kind, fingerprint, dim, created_at)"
            " VALUES (1, 'g', 'a test', 'flat', '', 4, 0)"
        )
        db.execute("INSERT INTO entries VALUES (7, 1, 'ann', NULL, NULL, '{}', 0)")
    db.close()
    database = opened(tmp_path)
    (row,) = database.submit_read(gallery_records.select_galleries).result()
    assert (row.name, row.purpose, row.retention) == ("g", "a test", None)
    assert list(database.submit_read(lambda db: records.select_entries_by_id(db, 1, [7])).result()) == [7]
    database.submit_write(lambda db: create_key(db, "ann", frozenset(), None, None)).result()
    database.close()
