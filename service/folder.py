"""The data folder: made for its owner only, used by one service at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import StartupError

DATABASE = "pan.sqlite3"
SNAPSHOTS = "snapshots"


def make_folder(folder: Path) -> None:
    """Make the data folder where there is none. Raises StartupError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from error


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the data folder, and keep a second service out of it while this one runs. Raises StartupError."""
    make_folder(folder)
    try:
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise _unusable(folder, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StartupError(f"another pan-serve uses {folder}; stop it, or give another --data") from None
        yield


def _unusable(folder: Path, error: OSError) -> StartupError:
    return StartupError(f"the data folder {folder} cannot be used ({error}); give another --data")
