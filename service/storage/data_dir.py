"""The data folder: private to its owner, and locked by one service at a time."""

import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.core.errors import StartupError

log = logging.getLogger(__name__)

DATABASE = "pan.sqlite3"
SNAPSHOTS = "snapshots"

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_FILES = (f"{DATABASE}*", "lock", f"{SNAPSHOTS}/*")


def prepare_data_dir(folder: Path) -> None:
    """Create the data folder with mode 0700 if it does not exist. Otherwise remove the access of other users to the
    files of the service in it.

    Raises StartupError if other users may write to the folder, because they could replace the database.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_mode(folder)
        for pattern in _FILES:
            for path in folder.glob(pattern):
                _make_private(path)
    except OSError as error:
        raise _unusable(folder, error) from error


def create_private_file(path: Path) -> None:
    """Create an empty file with mode 0600 if it does not exist, regardless of the umask. Raises OSError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


@contextmanager
def lock_data_dir(folder: Path) -> Iterator[None]:
    """Prepare the data folder and lock it inside the context. Raises StartupError if another process holds the lock."""
    prepare_data_dir(folder)
    try:
        create_private_file(folder / "lock")
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise _unusable(folder, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StartupError(f"another pan-serve uses {folder}; stop it, or give another --data") from None
        yield


def _check_mode(folder: Path) -> None:
    found = folder.stat()
    mode = stat.S_IMODE(found.st_mode)
    # Kubernetes grants access to a volume through its group (fsGroup), so a folder of another owner may be writable
    # for its group.
    writers = stat.S_IWOTH | (stat.S_IWGRP if found.st_uid == os.geteuid() else 0)
    if mode & writers:
        raise StartupError(
            f"other users may write to the data folder {folder} (mode {mode:04o}) and could replace the database; run "
            f"`chmod 700 {folder}`, or give a --data that does not exist: it is created for its owner only"
        )
    if mode & _OTHERS:
        log.warning(
            "other users can list the data folder, but not read its files; run `chmod 700` on it",
            extra={"folder": str(folder), "mode": f"{mode:04o}"},
        )


def _make_private(path: Path) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & _OTHERS and path.is_file():
            path.chmod(mode & ~_OTHERS)
            log.warning("removed the access of other users to a file", extra={"path": str(path)})
    except FileNotFoundError:  # a running service removes its WAL when it stops
        pass
    except PermissionError:
        log.warning(
            "other users may read a file, and its mode cannot be changed because it has another owner",
            extra={"path": str(path)},
        )


def _unusable(folder: Path, error: OSError) -> StartupError:
    return StartupError(f"the data folder {folder} cannot be used ({error}); give another --data")
