"""SQLite connections: durability settings, schema upgrades, and SQLite's errors as errors of this project."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from bundle import PanError
from service.core.errors import StartupError, StorageFailed, StorageFull
from service.storage.data_dir import create_private_file
from service.storage.migrations import MIGRATIONS, SCHEMA_VERSION

T = TypeVar("T")

_PAGE_SIZE = 2**14  # bytes; the default of 4,096 holds one vector of 512 float32 and leaves almost half of it empty
_BUSY_TIMEOUT = 10.0  # seconds that a connection waits for a lock
_CHECKPOINT_TIMEOUT = 2000  # milliseconds; writers wait during a checkpoint, so it is less than their timeout

# SQLite does not check the encoding of a text, so without "replace" a single flipped byte would fail every read.
lenient_text = partial(str, encoding="utf-8", errors="replace")


def open_writer(path: Path, *, upgrade: bool = True) -> sqlite3.Connection:
    """Open a database for reading and writing, and create it if it does not exist.

    Raises StartupError if it is not a gallery database, or has a schema that this release cannot read. Without
    `upgrade`, an older schema is an error as well.
    """
    try:
        create_private_file(path)  # SQLite creates the WAL and its shared memory with the mode of the database
        connection = _connect(path)
        try:
            _prepare(connection, path, upgrade)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.DatabaseError, OSError) as error:
        raise StartupError(
            f"{path} cannot be opened as a gallery database ({error}); check its owner, or restore a backup"
        ) from error
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Open an existing database of this release for queries. Raises sqlite3.Error."""
    connection = _connect(path)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_TIMEOUT}")
    except BaseException:
        connection.close()
        raise
    return connection


def open_read_only(path: Path, options: str = "") -> sqlite3.Connection:
    """Open a file of any schema version without changing it. Raises sqlite3.Error."""
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro{options}", uri=True, isolation_level=None)
    connection.text_factory = lenient_text
    return connection


@contextmanager
def connect_for_command(path: Path, *, create: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection for a command, which may run while a service uses the database.

    It never upgrades the schema, because that service may be of an earlier release. With `create`, a missing database
    is created. Raises StartupError as `open_writer` does, StorageFull and StorageFailed.
    """
    if not create and not path.is_file():
        raise StartupError(f"there is no {path.name} in {path.parent}; set --data to the data folder of the service")
    connection = open_writer(path, upgrade=False)
    try:
        yield connection
    except sqlite3.DatabaseError as error:
        raise storage_error(error) from error
    finally:
        connection.close()


@contextmanager
def read_transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Run the queries of the block on one snapshot of the database."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.execute("COMMIT")


def read_probe(db: sqlite3.Connection) -> None:
    """A minimal query, to test whether the database can be read."""
    db.execute("SELECT 1 FROM galleries LIMIT 1").fetchone()


def write_probe(db: sqlite3.Connection) -> None:
    """A write without an effect, to test whether the database can be written."""
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def with_storage_errors(call: Callable[[], T]) -> T:
    """Call it, and raise SQLite's errors as StorageFull or StorageFailed."""
    try:
        return call()
    except sqlite3.DatabaseError as error:
        raise storage_error(error) from error


def storage_error(error: Exception) -> PanError | Exception:
    """StorageFull or StorageFailed for an error of SQLite; any other error is returned as it is."""
    if not isinstance(error, sqlite3.DatabaseError):
        return error
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StorageFull("the disk is full, nothing was written; free some space and send the request again")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StorageFailed(
            f"the database is damaged ({error}), nothing was written; stop the service and restore a backup, or "
            "recover what is readable with `sqlite3 pan.sqlite3 .recover`"
        )
    return StorageFailed(f"the database cannot be used ({error}), nothing was written; try again or check the disk")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT)
    connection.row_factory = sqlite3.Row
    connection.text_factory = lenient_text
    return connection


def _prepare(writer: sqlite3.Connection, path: Path, upgrade: bool) -> None:
    version = writer.execute("PRAGMA user_version").fetchone()[0]
    tables = writer.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if version > SCHEMA_VERSION or (version == 0 and tables):
        raise StartupError(
            f"{path} has schema version {version}, but this release reads versions 1 to {SCHEMA_VERSION}; "
            "start the release that wrote it, or give another --data"
        )
    if 0 < version < SCHEMA_VERSION and not upgrade:
        raise StartupError(
            f"{path} has schema version {version} of an earlier release, this release has {SCHEMA_VERSION}, and a "
            "command does not upgrade it: start the service of this release once, or use the earlier pan-serve"
        )
    writer.execute(f"PRAGMA page_size = {_PAGE_SIZE}")  # has no effect on an existing file
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("PRAGMA synchronous = FULL")
    writer.execute("PRAGMA foreign_keys = ON")
    writer.execute("PRAGMA secure_delete = ON")
    if version < SCHEMA_VERSION:
        steps = ";".join(MIGRATIONS[version:])
        writer.executescript(f"BEGIN; {steps}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
