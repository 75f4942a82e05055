"""The database of a stopped service written anew. What was deleted is overwritten already; its room is given back."""

import os
import shutil
from pathlib import Path

from service.storage.backup import BackupError
from service.storage.data_dir import DATABASE, lock_data_dir
from service.storage.database import connect_for_command

_COPIES = 2  # of all that is kept, for a while: one on its own, one in the write-ahead log


def vacuum(data: Path) -> tuple[int, int]:
    """Shrink the database of a data folder; its size before and after, in bytes. An interruption loses nothing.

    Raises BackupError, StartupError while a service uses the folder, or a storage error.
    """
    path = data / DATABASE
    if not path.is_file():
        raise BackupError(f"{data} holds no {DATABASE}; give the --data of the service")
    before = path.stat().st_size
    os.environ["SQLITE_TMPDIR"] = str(data.absolute())  # people are copied to no other disk, not even for a moment
    with lock_data_dir(data), connect_for_command(path) as db:
        pages, free, size = (
            db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        needed, room = _COPIES * (pages - free) * size, shutil.disk_usage(data).free
        if room < needed:
            raise BackupError(
                f"it needs {needed / 2**20:,.0f} MiB for a while and the disk of {data} has {room / 2**20:,.0f}; "
                "free some, or move the galleries to another disk with `pan-serve backup` and `restore`, which shrinks "
                "them as well"
            )
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return before, path.stat().st_size
