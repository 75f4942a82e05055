"""Retention: erases expired entries every minute, and idempotency keys that are too old to be used again."""

import logging
import sqlite3
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager

from service.core.clock import now
from service.galleries.catalog import GalleryCatalog, LoadedGallery
from service.galleries.commands import PurgeGallery
from service.galleries.results import Erasure
from service.observability.metrics import Metrics
from service.observability.worker import Worker
from service.storage import entries as records
from service.storage import galleries as gallery_records
from service.storage import idempotency as idempotency_records
from service.storage.audit import insert_audit
from service.storage.database import Database

log = logging.getLogger(__name__)

_INTERVAL = 60.0  # seconds
_CALLER = "(service)"  # in the audit log; no key has such a name
_BATCH = 1000  # rows of a transaction, so that other writes wait for a short time only


class Purger:
    """Use it on one event loop. Searches do not find expired entries even before they are erased."""

    def __init__(self, database: Database, catalog: GalleryCatalog, metrics: Metrics) -> None:
        self._database = database
        self._catalog = catalog
        self._metrics = metrics
        self._worker = Worker("retention", self._purge_all, _INTERVAL, metrics)
        self.health = self._worker.health

    def running(self) -> AbstractAsyncContextManager[None]:
        """Purge every gallery now and each minute while the context is open."""
        return self._worker.running()

    async def purge(self, command: PurgeGallery) -> Erasure:
        """Erase the expired entries of a gallery. Raises NotFound or a storage error."""
        count = await self._erase(command.caller, self._catalog.find(command.gallery))
        return Erasure(count, await self._database.truncate_wal(), now())

    async def _purge_all(self) -> bool:
        succeeded = True
        for loaded in self._catalog.all():
            try:
                if loaded.row.retention is not None and await self._erase(_CALLER, loaded):
                    await self._database.truncate_wal()
            except Exception:  # the other galleries are purged all the same
                succeeded = False
                log.exception("expired entries were not erased", extra={"gallery": loaded.row.name})
        try:
            await self._delete_old_keys()
        except Exception:
            succeeded = False
            log.exception("old idempotency keys were not deleted")
        return succeeded

    async def _delete_old_keys(self) -> None:
        oldest = self._catalog.clock() - idempotency_records.RETENTION
        while await self._database.write(
            lambda db: idempotency_records.delete_responses(db, oldest=oldest, limit=_BATCH)
        ):
            pass

    async def _erase(self, caller: str, loaded: LoadedGallery) -> int:
        count = 0
        while batch := await self._erase_batch(caller, loaded):
            count += batch
        return count

    async def _erase_batch(self, caller: str, loaded: LoadedGallery) -> int:
        def apply(db: sqlite3.Connection) -> list[int]:
            row = gallery_records.select_gallery(db, loaded.row.id)
            if row is None or row.retention is None:
                return []
            ids = records.delete_expired(db, row.id, self._catalog.clock() - row.retention, _BATCH)
            if ids:
                insert_audit(db, caller, "purge", row.name, len(ids))
            return ids

        def on_commit(ids: list[int]) -> "Future[None] | None":
            self._metrics.entries_purged.inc(len(ids))
            if not ids:
                return None
            return self._catalog.apply_committed(loaded, lambda memory: memory.remove(ids))

        ids = await self._database.write(apply, on_commit)
        return len(ids)
