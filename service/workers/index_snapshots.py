"""Files with the trained state of indexes, so that a start need not train them again. They contain no vectors.

A file is written under another name, synchronised, renamed, and its folder synchronised. Then the database records its
sequence number and digest. Files that the database does not name are never read, and are removed.
"""

import hashlib
import logging
import os
import re
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np

from service.index.ann import State
from service.storage import galleries as gallery_records
from service.storage.data_dir import create_private_file
from service.storage.database import Database
from service.storage.galleries import GalleryRow

log = logging.getLogger(__name__)

_FILE_NAME = re.compile(r"^\d+-\d+\.(npz|tmp)$")


class Snapshots:
    """The files of one data folder. Use it from one thread."""

    def __init__(self, folder: Path, database: Database) -> None:
        self._folder = folder
        self._database = database

    def save(self, row: GalleryRow, state: State) -> None:
        """Save the state of an index. Raises OSError or a storage error; then the last saved state stays."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        content = BytesIO()
        np.savez(content, allow_pickle=False, fingerprint=np.array(row.fingerprint), **state)
        data = content.getbuffer()
        digest = hashlib.sha256(data).digest()
        recorded = self._database.submit_read(lambda db: gallery_records.select_snapshot(db, row.id)).result()
        sequence = recorded[0] + 1 if recorded else 1
        path = self._path(row, sequence)
        temporary = path.with_suffix(".tmp")
        create_private_file(temporary)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        _synchronise(self._folder)
        self._database.submit_write(lambda db: gallery_records.upsert_snapshot(db, row.id, sequence, digest)).result()

    def invalidate(self, row: GalleryRow) -> None:
        """Invalidate the saved state of a gallery; `sweep` removes the file. Raises a storage error."""
        self._database.submit_write(lambda db: gallery_records.delete_snapshot(db, row.id)).result()

    def load(self, row: GalleryRow) -> State | None:
        """The state that was saved last; None if there is none, or if the file does not have the recorded digest."""
        recorded = self._database.submit_read(lambda db: gallery_records.select_snapshot(db, row.id)).result()
        if recorded is None:
            return None
        sequence, digest = recorded
        try:
            data = self._path(row, sequence).read_bytes()
            if hashlib.sha256(data).digest() != digest:
                raise ValueError("it does not have the digest that the database records")
            with np.load(BytesIO(data), allow_pickle=False) as arrays:
                state = {name: arrays[name] for name in arrays.files}
            if str(state.pop("fingerprint")) != row.fingerprint:
                return None  # of the previous model
            return state
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            log.warning("a snapshot is not used, the index is trained again: %s", error, extra={"gallery": row.name})
            return None

    def sweep(self) -> None:
        """Remove the files that the database does not name. Raises OSError or a storage error."""
        if not self._folder.is_dir():
            return
        recorded = self._database.submit_read(gallery_records.select_snapshots).result()
        named = {f"{gallery_id}-{sequence}.npz" for gallery_id, sequence in recorded}
        for path in self._folder.iterdir():
            if _FILE_NAME.match(path.name) and path.name not in named:
                path.unlink()

    def _path(self, row: GalleryRow, sequence: int) -> Path:
        return self._folder / f"{row.id}-{sequence}.npz"


def _synchronise(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
