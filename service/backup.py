"""A copy of the database beside a running service, and the way back from one. Both files are whole or not there."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from bundle import PanError
from service.folder import DATABASE, alone_in
from service.records import VECTOR, WITH_VECTORS
from service.schema import SCHEMA_VERSION

_DAMAGED_BEFORE = (  # in a database of an earlier release, which knew no re-embedding
    "SELECT count(*) FROM entries JOIN galleries ON galleries.id = gallery_id"
    " LEFT JOIN vectors ON entry_id = entries.id WHERE length(vector) IS NOT 4 * dim"
)
_DAMAGED = (
    f"SELECT (SELECT count(*) FROM entries) - (SELECT count(*) FROM {WITH_VECTORS}"
    f" JOIN galleries ON galleries.id = entries.gallery_id WHERE length({VECTOR}) = 4 * dim)"
)


class BackupError(PanError):
    """A backup cannot be made, or what was given is none; nothing was changed."""

    code: ClassVar[str] = "backup"


@dataclass(frozen=True, slots=True)
class Held:
    """A gallery in a backup."""

    name: str
    entries: int
    fingerprint: str


def back_up(data: Path, to: Path) -> list[Held]:
    """Copy the database of a data folder as one moment left it, and check the copy; what galleries it holds.

    The copy has no free pages, so nothing that was deleted is in it. Raises BackupError.
    """
    if not (data / DATABASE).is_file():
        raise BackupError(f"{data} holds no {DATABASE}; give the --data of the service")
    if to.exists():
        raise BackupError(f"{to} is there already; give another name")
    with replaced(to) as partial:
        with closing(_read_only(data / DATABASE)) as db:
            db.execute("VACUUM INTO ?", (str(partial),))
        return _examine(partial)


def restore(backup: Path, data: Path, *, replace: bool, fingerprint: str | None = None) -> list[Held]:
    """Make a backup the database of a data folder; what galleries it holds. With a fingerprint all must be of that
    model; with `replace` the folder may hold something, and its database is given up.

    Raises BackupError, and StartupError while a service uses the folder.
    """
    if not backup.is_file():
        raise BackupError(f"there is no file {backup}")
    with alone_in(data):
        held = sorted(path.name for path in data.iterdir() if path.name != "lock")
        if held and not replace:
            raise BackupError(
                f"{data} is not empty ({', '.join(held[:5])}); give another --data, or --force to give up its database"
            )
        with replaced(data / DATABASE) as partial:
            shutil.copyfile(backup, partial)
            galleries = _examine(partial)
            for one in galleries:
                if fingerprint not in (None, one.fingerprint):
                    raise BackupError(
                        f"gallery {one.name} was enrolled with model {one.fingerprint[:12]} and the bundle is "
                        f"{str(fingerprint)[:12]}, which cannot search it; give its bundle, or none to restore anyway"
                    )
            for suffix in ("-wal", "-shm"):  # the log of the database that goes must never be played into this one
                (data / f"{DATABASE}{suffix}").unlink(missing_ok=True)
    return galleries


def _examine(path: Path) -> list[Held]:
    """Read every page and row. Raises BackupError for what no service could start from."""
    with closing(_read_only(path, "&immutable=1")) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if not 1 <= version <= SCHEMA_VERSION:
            raise BackupError(
                f"it has schema version {version} and this release reads 1 to {SCHEMA_VERSION}; it is no backup of a "
                "gallery database, or one of a later release"
            )
        problem = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if problem != "ok":
            raise BackupError(f"the database is damaged ({problem}); take an earlier backup")
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
        damaged = db.execute(_DAMAGED if "reembedded" in tables else _DAMAGED_BEFORE).fetchone()[0]
        if damaged or db.execute("PRAGMA foreign_key_check").fetchone():
            raise BackupError(f"the database is damaged ({damaged} entries without their vector); take an earlier one")
        rows = db.execute(
            "SELECT name, (SELECT count(*) FROM entries WHERE gallery_id = galleries.id), fingerprint"
            " FROM galleries ORDER BY name"
        )
        return [Held(*row) for row in rows]


def _read_only(path: Path, options: str = "") -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro{options}", uri=True, isolation_level=None)


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
