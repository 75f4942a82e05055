"""The data folder: for its owner only, and used by one service at a time."""

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


def make_folder(folder: Path) -> None:
    """Make the data folder where there is none, with mode 0700. In one that is there, the files of the service become
    readable and writable for their owner only.

    Raises StartupError where others may write to the folder, since they could put another database there.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_mode(folder)
        for pattern in _FILES:
            for path in folder.glob(pattern):
                _close_to_others(path)
    except OSError as error:
        raise _unusable(folder, error) from error


def make_private(path: Path) -> None:
    """Make an empty file with mode 0600 where there is none, whatever the umask. Raises OSError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


@contextmanager
def lock_data_dir(folder: Path) -> Iterator[None]:
    """Make the data folder, and keep a second service out of it while this one runs. Raises StartupError."""
    make_folder(folder)
    try:
        make_private(folder / "lock")
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
    # A folder of another owner may be ours through its group alone, as a volume in Kubernetes is with fsGroup.
    writers = stat.S_IWOTH | (stat.S_IWGRP if found.st_uid == os.geteuid() else 0)
    if mode & writers:
        raise StartupError(
            f"other users may write to the data folder {folder} (mode {mode:04o}) and replace what it holds; "
            f"`chmod 700 {folder}`, or give a --data that is not there yet: it is made for its owner only"
        )
    if mode & _OTHERS:
        log.warning(
            "other users may look into the data folder; its files are closed to them, `chmod 700` closes it as well",
            extra={"folder": str(folder), "mode": f"{mode:04o}"},
        )


def _close_to_others(path: Path) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & _OTHERS and path.is_file():
            path.chmod(mode & ~_OTHERS)
            log.warning("other users could read a file; they no longer can", extra={"path": str(path)})
    except FileNotFoundError:  # a service beside this command removes its log when it stops
        pass
    except PermissionError:
        log.warning("other users may read a file, and it has another owner", extra={"path": str(path)})


def _unusable(folder: Path, error: OSError) -> StartupError:
    return StartupError(f"the data folder {folder} cannot be used ({error}); give another --data")
