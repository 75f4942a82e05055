"""Whole galleries out of the database and into it, a batch at a time: little memory, and others go on meanwhile."""

import sqlite3
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from service.core.errors import Conflict
from service.core.models import EntryRow, since
from service.core.types import Vectors
from service.galleries.catalog import GalleryCatalog, LoadedGallery, require
from service.storage import crops as kept_records
from service.storage import entries as records
from service.storage import galleries as gallery_records
from service.storage.audit import insert_audit
from service.storage.connection import read_transaction
from service.storage.database import Database
from service.storage.entries import ExportedRow
from service.storage.galleries import GalleryRow

BATCH = 500  # entries of one read, or of one commit
BATCH_BYTES = 4 * 2**20  # and no more of their vectors and pictures than this and one entry's

WriteBatch = Callable[[Sequence[EntryRow], Vectors, Sequence[bytes | None]], Awaitable[None]]


class Transfer:
    """The way out and the way in. An import is a gallery under a name that none can have until all of it is there."""

    def __init__(self, database: Database, galleries: GalleryCatalog) -> None:
        self._database = database
        self._galleries = galleries

    async def export(self, who: str, name: str) -> tuple[GalleryRow, AsyncIterator[list[ExportedRow]]]:
        """A gallery and its entries: those that were enrolled by now and are neither deleted, expired nor damaged
        when it is their turn. Raises NotFound or a storage error.
        """
        held = self._galleries.find(name)
        row = held.row

        def begin(db: sqlite3.Connection) -> int:
            insert_audit(db, who, "export", name, records.count_entries(db, row.id))
            return records.max_entry_id(db, row.id)

        return row, self._batches(held, row, await self._database.write(begin))

    async def _batches(self, held: LoadedGallery, row: GalleryRow, last: int) -> AsyncIterator[list[ExportedRow]]:
        def page(db: sqlite3.Connection) -> list[ExportedRow]:
            with read_transaction(db):
                if require(db, row).fingerprint != row.fingerprint:
                    raise Conflict(f"gallery {row.name} has gone over to another model meanwhile; export it again")
                return records.select_for_export(db, row.id, after=after, last=last, limit=BATCH, size=BATCH_BYTES)

        after = 0
        while batch := await self._database.read(page):
            after = batch[-1].row.id
            oldest = None if row.retention is None else self._galleries.clock() - row.retention
            yield [
                one
                for one in batch
                if one.row.id not in held.memory.set_aside and (oldest is None or since(one.row) > oldest)
            ]

    @asynccontextmanager
    async def incoming(
        self, who: str, name: str, purpose: str, retention: int | None, keep_crops: bool
    ) -> AsyncIterator[WriteBatch]:
        """Within it entries are kept that nobody sees; at its end there is the gallery, or after an error nothing.

        Raises Conflict where the name is taken, or a storage error.
        """
        row = await self._galleries.begin_import(
            f"{gallery_records.IMPORT_PREFIX}{uuid.uuid4().hex}", name, purpose, retention, keep_crops
        )

        async def keep(entries: Sequence[EntryRow], vectors: Vectors, images: Sequence[bytes | None]) -> None:
            def apply(db: sqlite3.Connection) -> None:
                kept_records.insert_crops(db, records.insert_entries(db, row.id, entries, vectors), images)

            await self._database.write(apply)

        try:
            yield keep
            await self._galleries.finish_import(who, name, row)
        except BaseException:
            self._galleries.drop_import(row)
            raise
