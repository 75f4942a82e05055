"""Whole galleries out of the database and into it, a batch at a time: little memory, and others go on meanwhile."""

import sqlite3
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

from service import gallery_records, records
from service.database import Database
from service.engine import Vectors
from service.galleries import Galleries
from service.gallery_records import GalleryRow
from service.records import EntryRow

BATCH = 500  # entries of one read, or of one commit

Keep = Callable[[Sequence[EntryRow], Vectors], Awaitable[None]]


class Transfer:
    """The way out and the way in. An import is a gallery under a name that none can have until all of it is there."""

    def __init__(self, database: Database, galleries: Galleries) -> None:
        self._database = database
        self._galleries = galleries

    async def outgoing(self, who: str, name: str) -> tuple[GalleryRow, AsyncIterator[list[tuple[EntryRow, bytes]]]]:
        """A gallery, and its entries with the bytes of their vectors: those that were enrolled by now and are neither
        deleted nor expired when it is their turn. Raises NotFound or a storage error.
        """
        row = self._galleries.find(name).row

        def begin(db: sqlite3.Connection) -> int:
            records.insert_audit(db, who, "export", name, records.count_entries(db, row.id))
            return records.last_entry(db, row.id)

        return row, self._batches(row, await self._database.write(begin))

    async def _batches(self, row: GalleryRow, last: int) -> AsyncIterator[list[tuple[EntryRow, bytes]]]:
        after = 0
        while batch := await self._database.read(
            partial(records.select_with_vectors, gallery_id=row.id, after=after, last=last, limit=BATCH)
        ):
            after = batch[-1][0].id
            oldest = None if row.retention is None else self._galleries.clock() - row.retention
            yield [(entry, vector) for entry, vector in batch if oldest is None or records.since(entry) > oldest]

    @asynccontextmanager
    async def incoming(self, who: str, name: str, purpose: str, retention: int | None) -> AsyncIterator[Keep]:
        """Within it entries are kept that nobody sees; at its end there is the gallery, or after an error nothing.

        Raises Conflict where the name is taken, or a storage error.
        """
        row = await self._galleries.begin_import(
            f"{gallery_records.UNFINISHED}{uuid.uuid4().hex}", name, purpose, retention
        )

        async def keep(entries: Sequence[EntryRow], vectors: Vectors) -> None:
            await self._database.write(lambda db: records.insert_entries(db, row.id, entries, vectors))

        try:
            yield keep
            await self._galleries.finish_import(who, name, row)
        except BaseException:
            self._galleries.drop_import(row)
            raise
