"""Retention: entries that have outlived their gallery's are erased, by the minute and without being asked."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress

from service import gallery_records, records
from service.database import Database
from service.errors import InvalidRequest
from service.galleries import Erasure, Galleries, Held
from service.metrics import Metrics
from service.records import NewEntry

log = logging.getLogger(__name__)

DAY = 86_400_000_000  # microseconds
_EVERY = 60.0  # seconds
_NOBODY = "(service)"  # in the audit; no key has such a name
_BATCH = 1000  # entries a transaction, so that other writes wait for a moment only


class Purger:
    """Lives on one event loop. What has expired answers no search already before it is erased here."""

    def __init__(self, database: Database, galleries: Galleries, metrics: Metrics) -> None:
        self._database = database
        self._galleries = galleries
        self._metrics = metrics

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Purge every gallery now and each minute."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def purge(self, who: str, name: str) -> Erasure:
        """Erase what has expired in a gallery. Raises NotFound or a storage error."""
        count = await self._erase(who, self._galleries.find(name))
        return Erasure(count, await self._database.empty_log())

    async def _run(self) -> None:
        while True:
            for held in self._galleries.all():
                try:
                    if held.row.retention is not None and await self._erase(_NOBODY, held):
                        await self._database.empty_log()
                except Exception:  # a task that ended unnoticed would keep people for good
                    log.exception("expired entries were not erased", extra={"gallery": held.row.name})
            await asyncio.sleep(_EVERY)

    async def _erase(self, who: str, held: Held) -> int:
        count = 0
        while batch := await self._erase_oldest(who, held):
            count += batch
        return count

    async def _erase_oldest(self, who: str, held: Held) -> int:
        def apply(db: sqlite3.Connection) -> list[int]:
            row = gallery_records.select_gallery(db, held.row.id)
            if row is None or row.retention is None:
                return []
            ids = records.delete_expired(db, row.id, self._galleries.clock() - row.retention, _BATCH)
            if ids:
                records.insert_audit(db, who, "purge", row.name, len(ids))
            return ids

        def committed(ids: list[int]) -> Future[None] | None:
            self._metrics.entries_purged.inc(len(ids))
            return self._galleries.follow(held, lambda memory: memory.remove(ids)) if ids else None

        ids = await self._database.write(apply, committed)
        return len(ids)


def refuse_expired(entries: Sequence[NewEntry], held: Held, clock: int) -> None:
    """Raises InvalidRequest for crops that are older than the gallery keeps: they would be erased at once."""
    retention = held.row.retention
    if retention is None:
        return
    old = [place for place, entry in enumerate(entries) if clock - records.since(entry) >= retention]
    if old:
        problem = f"captured longer ago than the {retention / DAY:g} days that gallery {held.row.name} keeps"
        raise InvalidRequest(
            f"{len(old)} of {len(entries)} crops were {problem}, and nothing was enrolled; leave them out",
            [{"at": f"entries.{place}.captured_at", "problem": problem} for place in old[:20]],
        )
