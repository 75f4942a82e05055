"""What is costly to learn of an index, in files, so that a start need not learn it again. They hold no vector.

A file is written under another name, synchronised, renamed, and the folder synchronised; then the database says that it
is the right one, by its sequence number and digest. Any other file is none of ours: it is never read, and removed.
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

_OURS = re.compile(r"^\d+-\d+\.(npz|tmp)$")


class Snapshots:
    """The files of one data folder. Used by one thread."""

    def __init__(self, folder: Path, database: Database) -> None:
        self._folder = folder
        self._database = database

    def save(self, row: GalleryRow, state: State) -> None:
        """Keep the state of a gallery's index. Raises OSError or a storage error; what was kept before then stays."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        content = BytesIO()
        np.savez(content, allow_pickle=False, fingerprint=np.array(row.fingerprint), **state)
        data = content.getbuffer()
        digest = hashlib.sha256(data).digest()
        told = self._database.submit_read(lambda db: gallery_records.select_snapshot(db, row.id)).result()
        sequence = told[0] + 1 if told else 1
        path = self._path(row, sequence)
        beside = path.with_suffix(".tmp")
        create_private_file(beside)
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
        _synchronise(self._folder)
        self._database.submit_write(lambda db: gallery_records.upsert_snapshot(db, row.id, sequence, digest)).result()

    def drop(self, row: GalleryRow) -> None:
        """Give up what was saved of a gallery; `sweep` removes the file. Raises a storage error."""
        self._database.submit_write(lambda db: gallery_records.delete_snapshot(db, row.id)).result()

    def load(self, row: GalleryRow) -> State | None:
        """The state that was saved last; None where there is none, or it is not what the database says."""
        told = self._database.submit_read(lambda db: gallery_records.select_snapshot(db, row.id)).result()
        if told is None:
            return None
        sequence, digest = told
        try:
            data = self._path(row, sequence).read_bytes()
            if hashlib.sha256(data).digest() != digest:
                raise ValueError("its digest is another than the database says")
            with np.load(BytesIO(data), allow_pickle=False) as arrays:
                state = {name: arrays[name] for name in arrays.files}
            if str(state.pop("fingerprint")) != row.fingerprint:
                return None  # of the model before this one
            return state
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            log.warning("a snapshot is not used, the index is built anew: %s", error, extra={"gallery": row.name})
            return None

    def sweep(self) -> None:
        """Remove the files that the database does not name. Raises OSError or a storage error."""
        if not self._folder.is_dir():
            return
        told = self._database.submit_read(gallery_records.select_snapshots).result()
        named = {f"{gallery_id}-{sequence}.npz" for gallery_id, sequence in told}
        for path in self._folder.iterdir():
            if _OURS.match(path.name) and path.name not in named:
                path.unlink()

    def _path(self, row: GalleryRow, sequence: int) -> Path:
        return self._folder / f"{row.id}-{sequence}.npz"


def _synchronise(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
