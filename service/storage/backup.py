"""A copy of the database beside a running service, and the way back from one. Both files are whole or not there."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from bundle import PanError
from service.storage.data_dir import DATABASE, lock_data_dir
from service.storage.integrity import GalleryReport, broken_pages, examine_galleries, lenient_text
from service.storage.migrations import SCHEMA_VERSION

TAKE_ANOTHER = "take an earlier backup, or save what can be read with `sqlite3 FILE .recover`"


class BackupError(PanError):
    """A backup cannot be made, or what was given is none; nothing was changed."""

    code: ClassVar[str] = "backup"


def back_up(data: Path, to: Path) -> list[GalleryReport]:
    """Copy the database of a data folder as one moment left it, and examine the copy; what galleries it holds. Damaged
    entries are copied as they are, and told.

    The copy has no free pages, so nothing that was deleted is in it. Raises BackupError.
    """
    source = data / DATABASE
    if not source.is_file():
        raise BackupError(f"{data} holds no {DATABASE}; give the --data of the service")
    if to.exists():
        raise BackupError(f"{to} is there already; give another name")
    with replaced(to) as partial:
        try:
            with closing(read_only(source)) as db:
                db.execute("VACUUM INTO ?", (str(partial),))
        except sqlite3.Error as error:
            raise BackupError(
                f"{source} was not copied to {to} ({error}); see whether the disk has room, and what `pan-serve check` "
                "says of the database"
            ) from error
        return _examine(partial, source)


def restore(backup: Path, data: Path, *, replace: bool, fingerprint: str | None = None) -> list[GalleryReport]:
    """Make a backup the database of a data folder; what galleries it holds. With a fingerprint all must be of that
    model; with `replace` the folder may hold something, and its database is given up. Damaged entries are restored as
    they are, and told. Whenever this is interrupted, one of the two databases is there, with all it held.

    Raises BackupError, and StartupError while a service uses the folder.
    """
    if not backup.is_file():
        raise BackupError(f"there is no file {backup}")
    if _has_log(backup):
        raise BackupError(
            f"{backup} is no backup but a database whose last changes are in {_log(backup).name} beside it; make a "
            "backup of its folder with `pan-serve backup`, and restore that"
        )
    with lock_data_dir(data):
        held = sorted(path.name for path in data.iterdir() if path.name != "lock")
        if held and not replace:
            raise BackupError(
                f"{data} is not empty ({', '.join(held[:5])}); give another --data, or --force to give up its database"
            )
        with replaced(data / DATABASE) as partial:
            shutil.copyfile(backup, partial)
            galleries = _examine(partial, backup)
            for one in galleries:
                if fingerprint not in (None, one.fingerprint):
                    raise BackupError(
                        f"gallery {one.name} was enrolled with model {one.fingerprint[:12]} and the bundle is "
                        f"{str(fingerprint)[:12]}, which cannot search it; give its bundle, or none to restore anyway"
                    )
            _merge_log(data / DATABASE)
    return galleries


def _merge_log(database: Path) -> None:
    """Move the write-ahead log of a database that is to be replaced into it, and leave none.

    SQLite would play a log that is left into the new database. To remove it first would lose acknowledged changes, if
    the replacement then failed. Merged, it can neither be lost nor played.
    """
    if not _has_log(database):
        return
    log = _log(database)
    apart = f"to give them up, move {database} and {log.name} to another folder and restore again"
    if not database.exists():
        raise BackupError(f"{log} holds changes of a database that is gone; {apart}")
    try:
        with closing(sqlite3.connect(database, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = FULL")
            busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.Error as error:
        raise BackupError(f"{log} holds changes that cannot be merged into {database} ({error}); {apart}") from error
    if busy or _has_log(database):
        raise BackupError(f"another program reads {database}; stop it and restore again")


def _log(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


def _has_log(database: Path) -> bool:
    log = _log(database)
    return log.exists() and log.stat().st_size > 0


def _examine(copy: Path, source: Path) -> list[GalleryReport]:
    """Read every page and row of a copy, as a start does. Raises BackupError for what no service could start from, and
    blames `source`.
    """
    try:
        with closing(read_only(copy, "&immutable=1")) as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if not 1 <= version <= SCHEMA_VERSION:
                raise BackupError(
                    f"{source} has schema version {version} and this release reads 1 to {SCHEMA_VERSION}; it is no "
                    "gallery database, or one of a later release"
                )
            if problems := broken_pages(db):
                raise BackupError(f"{source} is damaged ({problems[0]}); {TAKE_ANOTHER}")
            return examine_galleries(db)
    except sqlite3.DatabaseError as error:
        raise BackupError(f"{source} is no gallery database, or it is damaged ({error}); {TAKE_ANOTHER}") from error


def read_only(path: Path, options: str = "") -> sqlite3.Connection:
    """A connection that changes nothing. Raises sqlite3.Error."""
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro{options}", uri=True, isolation_level=None)
    connection.text_factory = lenient_text
    return connection


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file to write beside `path`; it takes its place when it is on disk, or leaves nothing behind."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # readable for its owner only
    except OSError as error:
        raise BackupError(f"nothing can be written to {path.parent} ({error})") from error
    partial = Path(name)
    try:
        yield partial
        os.fsync(handle)
        partial.replace(path)
        _sync_folder(path.parent)
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"{path} was not written ({error}); see the disk and who owns the files") from error
    finally:
        os.close(handle)
        partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
