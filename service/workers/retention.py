"""Retention: what has been kept for as long as it may be is erased, by the minute and without being asked."""

import logging
import sqlite3
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager

from service.core.errors import InvalidRequest
from service.core.models import NewEntry, since
from service.galleries.catalog import Erasure, GalleryCatalog, LoadedGallery
from service.observability.metrics import Metrics
from service.observability.worker import Worker
from service.storage import entries as records
from service.storage import galleries as gallery_records
from service.storage import idempotency as answered_records
from service.storage.audit import insert_audit
from service.storage.database import Database

log = logging.getLogger(__name__)

DAY = 86_400_000_000  # microseconds
_EVERY = 60.0  # seconds
_NOBODY = "(service)"  # in the audit; no key has such a name
_BATCH = 1000  # rows a transaction, so that other writes wait for a moment only


class Purger:
    """Lives on one event loop. What has expired answers no search already before it is erased here."""

    def __init__(self, database: Database, galleries: GalleryCatalog, metrics: Metrics) -> None:
        self._database = database
        self._galleries = galleries
        self._metrics = metrics
        self._worker = Worker("retention", self._purge_all, _EVERY, metrics)
        self.health = self._worker.health

    def running(self) -> AbstractAsyncContextManager[None]:
        """Purge every gallery now and each minute."""
        return self._worker.running()

    async def purge(self, who: str, name: str) -> Erasure:
        """Erase what has expired in a gallery. Raises NotFound or a storage error."""
        count = await self._erase(who, self._galleries.find(name))
        return Erasure(count, await self._database.truncate_wal())

    async def _purge_all(self) -> bool:
        all_well = True
        for held in self._galleries.all():
            try:
                if held.row.retention is not None and await self._erase(_NOBODY, held):
                    await self._database.truncate_wal()
            except Exception:  # the other galleries' are erased all the same
                all_well = False
                log.exception("expired entries were not erased", extra={"gallery": held.row.name})
        try:
            await self._forget_answers()
        except Exception:
            all_well = False
            log.exception("answers to requests with an Idempotency-Key were not forgotten")
        return all_well

    async def _forget_answers(self) -> None:
        oldest = self._galleries.clock() - answered_records.RETENTION
        while await self._database.write(lambda db: answered_records.delete_responses(db, oldest=oldest, limit=_BATCH)):
            pass

    async def _erase(self, who: str, held: LoadedGallery) -> int:
        count = 0
        while batch := await self._erase_oldest(who, held):
            count += batch
        return count

    async def _erase_oldest(self, who: str, held: LoadedGallery) -> int:
        def apply(db: sqlite3.Connection) -> list[int]:
            row = gallery_records.select_gallery(db, held.row.id)
            if row is None or row.retention is None:
                return []
            ids = records.delete_expired(db, row.id, self._galleries.clock() - row.retention, _BATCH)
            if ids:
                insert_audit(db, who, "purge", row.name, len(ids))
            return ids

        def committed(ids: list[int]) -> Future[None] | None:
            self._metrics.entries_purged.inc(len(ids))
            return self._galleries.follow(held, lambda memory: memory.remove(ids)) if ids else None

        ids = await self._database.write(apply, committed)
        return len(ids)


def refuse_expired(entry: NewEntry, held: LoadedGallery, clock: int) -> None:
    """Raises InvalidRequest for a crop that is older than the gallery keeps: it would be erased at once."""
    retention = held.row.retention
    if retention is not None and clock - since(entry) >= retention:
        days = f"{retention / DAY:g} days"
        raise InvalidRequest(
            f"the crop was captured longer ago than the {days} that gallery {held.row.name} keeps; leave it out",
            [{"at": "captured_at", "problem": f"longer ago than {days}"}],
        )
