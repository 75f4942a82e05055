"""Copies, restores and shrinks the database of a data folder. An interruption leaves no partial file."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import ClassVar

from bundle import PanError
from service.storage.connection import connect_for_command, open_read_only
from service.storage.data_dir import DATABASE, lock_data_dir
from service.storage.integrity import GalleryReport, examine_galleries, integrity_errors
from service.storage.migrations import SCHEMA_VERSION

RECOVERY_HINT = "restore an earlier backup, or recover what is readable with `sqlite3 FILE .recover`"

_VACUUM_COPIES = 2  # of the data, temporarily on disk: a temporary file and the write-ahead log


class BackupError(PanError):
    """A backup or vacuum is not possible, or a file is not a usable backup. Nothing was changed."""

    code: ClassVar[str] = "backup"


def create_backup(data: Path, to: Path) -> list[GalleryReport]:
    """Copy the database of a data folder to a new file, examine the copy, and return a report on each gallery.

    A running service may use the database. The copy is one consistent snapshot without free pages, so no deleted data
    is in it. Damaged entries are copied and reported. Raises BackupError.
    """
    source = _existing_database(data)
    if to.exists():
        raise BackupError(f"{to} exists; give another name")
    with atomic_write(to) as partial:
        try:
            with closing(open_read_only(source)) as db:
                db.execute("VACUUM INTO ?", (str(partial),))
        except sqlite3.Error as error:
            raise BackupError(
                f"{source} was not copied to {to} ({error}); check the free space on the disk, and examine the "
                "database with `pan-serve check`"
            ) from error
        return _examine(partial, source)


def restore_backup(backup: Path, data: Path, *, replace: bool, fingerprint: str | None = None) -> list[GalleryReport]:
    """Make a backup the database of a data folder, and return a report on each gallery.

    `replace` allows a folder that is not empty; its database is replaced. With `fingerprint`, every gallery must have
    been enrolled with that model. Damaged entries are restored and reported. After an interruption, the folder has
    either the old database or the new one, complete.

    Raises BackupError, and StartupError while a service uses the folder.
    """
    if not backup.is_file():
        raise BackupError(f"there is no file {backup}")
    if _has_wal(backup):
        raise BackupError(
            f"{backup} is not a backup but a database in use: its latest changes are in {_wal(backup).name} beside it; "
            "create a backup of its folder with `pan-serve backup`, and restore that"
        )
    with lock_data_dir(data):
        existing = sorted(path.name for path in data.iterdir() if path.name != "lock")
        if existing and not replace:
            raise BackupError(
                f"{data} is not empty ({', '.join(existing[:5])}); give another --data, or --force to replace its "
                "database"
            )
        with atomic_write(data / DATABASE) as partial:
            shutil.copyfile(backup, partial)
            galleries = _examine(partial, backup)
            for one in galleries:
                if fingerprint not in (None, one.fingerprint):
                    raise BackupError(
                        f"gallery {one.name} was enrolled with model {one.fingerprint[:12]}, but the bundle is "
                        f"{str(fingerprint)[:12]} and cannot search it; give the bundle of that model, or omit "
                        "--bundle to restore anyway"
                    )
            _checkpoint_wal(data / DATABASE)
    return galleries


def vacuum(data: Path) -> tuple[int, int]:
    """Shrink the database of a stopped service, and return its size before and after, in bytes.

    Deleted data is already overwritten; this returns its space to the disk. An interruption loses nothing. Raises
    BackupError, StartupError while a service uses the folder, StorageFull and StorageFailed.
    """
    path = _existing_database(data)
    before = path.stat().st_size
    os.environ["SQLITE_TMPDIR"] = str(data.absolute())  # personal data must not be written to another disk
    with lock_data_dir(data), connect_for_command(path) as db:
        pages, free, size = (
            db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        needed, available = _VACUUM_COPIES * (pages - free) * size, shutil.disk_usage(data).free
        if available < needed:
            raise BackupError(
                f"vacuum needs {needed / 2**20:,.0f} MiB of temporary space, and the disk of {data} has "
                f"{available / 2**20:,.0f} MiB; free some space, or move the galleries to another disk with "
                "`pan-serve backup` and `restore`, which shrinks the database as well"
            )
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return before, path.stat().st_size


def _existing_database(data: Path) -> Path:
    path = data / DATABASE
    if not path.is_file():
        raise BackupError(f"there is no {DATABASE} in {data}; set --data to the data folder of the service")
    return path


def _checkpoint_wal(database: Path) -> None:
    """Merge the write-ahead log of a database into it before the database is replaced.

    SQLite would apply a remaining log to the new database. Deleting it instead would lose acknowledged writes if the
    replacement then failed.
    """
    if not _has_wal(database):
        return
    wal = _wal(database)
    remedy = f"to discard them, move {database} and {wal.name} to another folder and restore again"
    if not database.exists():
        raise BackupError(f"{wal} holds changes, but its database is missing; {remedy}")
    try:
        with closing(sqlite3.connect(database, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous = FULL")
            busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.Error as error:
        raise BackupError(f"{wal} holds changes that cannot be merged into {database} ({error}); {remedy}") from error
    if busy or _has_wal(database):
        raise BackupError(f"another program reads {database}; stop it and restore again")


def _wal(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


def _has_wal(database: Path) -> bool:
    wal = _wal(database)
    return wal.exists() and wal.stat().st_size > 0


def _examine(copy: Path, source: Path) -> list[GalleryReport]:
    """Read every page and row of a copy, as a startup does.

    Raises BackupError, in terms of `source`, if no service could start with it.
    """
    try:
        with closing(open_read_only(copy, "&immutable=1")) as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if not 1 <= version <= SCHEMA_VERSION:
                raise BackupError(
                    f"{source} has schema version {version}, but this release reads versions 1 to {SCHEMA_VERSION}; it "
                    "is not a gallery database, or it is of a later release"
                )
            if problems := integrity_errors(db):
                raise BackupError(f"{source} is damaged ({problems[0]}); {RECOVERY_HINT}")
            return examine_galleries(db)
    except sqlite3.DatabaseError as error:
        raise BackupError(f"{source} is not a gallery database, or is damaged ({error}); {RECOVERY_HINT}") from error


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file in the folder of `path`. On success it is synced and renamed to `path`, otherwise deleted."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # with mode 0600
    except OSError as error:
        raise BackupError(f"{path.parent} is not writable ({error})") from error
    partial = Path(name)
    try:
        yield partial
        os.fsync(handle)
        partial.replace(path)
        _sync_folder(path.parent)
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"{path} was not written ({error}); check the disk and the owner of the files") from error
    finally:
        os.close(handle)
        partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
