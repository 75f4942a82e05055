"""Re-embedding: brings a gallery to the loaded model, in the background, from its kept crops.

Until it is finished the gallery answers with its old vectors and accepts changes. Progress is stored batch by batch:
after a stop, work continues by itself once the same model is loaded again.
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from service.core.errors import Conflict, CropsMissing, NotFound
from service.galleries.catalog import GalleryCatalog, LoadedGallery, require_gallery
from service.galleries.commands import GetReEmbedding, ReEmbedGallery
from service.galleries.results import Erasure, ReEmbedding, ReEmbeddingState
from service.inference.embedder import Embedder
from service.observability.metrics import Metrics
from service.observability.worker import WorkerHealth
from service.storage import reembedding as rows
from service.storage.audit import insert_audit
from service.storage.connection import read_transaction
from service.storage.database import Database
from service.storage.galleries import GalleryRow
from service.storage.reembedding import EntryCounts, ReEmbeddingRow
from service.workers.reembedding_steps import Cancelled, ReEmbeddingSteps, crops_missing

log = logging.getLogger(__name__)

_RETRY_DELAY = 5.0  # seconds


class ReEmbedder:
    """Use it on one event loop. It works on one gallery at a time, and with lower priority than requests."""

    def __init__(self, database: Database, catalog: GalleryCatalog, embedder: Embedder, metrics: Metrics) -> None:
        self._database = database
        self._catalog = catalog
        self._steps = ReEmbeddingSteps(database, catalog, embedder)
        self._turn = asyncio.Lock()
        self._tasks: dict[int, asyncio.Task[None]] = {}  # by gallery id
        self._problems: dict[int, str] = {}
        self._failing: set[int] = set()  # ids of galleries whose last step failed
        self.health = WorkerHealth("re-embedding", metrics)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Continue unfinished work while the context is open."""
        begun = await self._database.read(rows.select_reembedding_ids)
        for loaded in self._catalog.all():
            if loaded.row.id in begun:
                self._ensure_task(loaded)
        try:
            yield
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def start(self, command: ReEmbedGallery) -> ReEmbedding:
        """Start or continue. Does nothing if the gallery is of the loaded model.

        With `drop_without_crop`, entries without a usable crop are erased at the end: at most as many as there are now.
        Raises NotFound, CropsMissing, Conflict, or a storage error.
        """
        loaded = self._catalog.find(command.gallery)

        def apply(db: sqlite3.Connection) -> bool:
            row = require_gallery(db, loaded.row)
            if self._catalog.is_current(row):
                return False
            last = rows.select_reembedding(db, row.id)
            if last is not None and last.finished_at is not None and not rows.is_migrated(db, row.id):
                raise Conflict(
                    f"gallery {row.name} has changed to another model and its vectors are still being moved; try again"
                )
            if last is None or not self._steps.is_open(last):
                rows.delete_unfinished(db, row.id)
                last = ReEmbeddingRow(row.id, self._catalog.fingerprint, max_dropped=0)
            if not command.drop_without_crop:
                rows.reset_failed(db, row.id)
            counts = rows.count_entries(db, row.id)
            if command.drop_without_crop:
                last = replace(last, max_dropped=counts.impossible)
            elif counts.impossible > last.max_dropped:
                raise crops_missing(row.name, counts)
            rows.upsert_reembedding(db, last)
            insert_audit(db, command.caller, "re-embed", row.name, counts.entries)
            return True

        if await self._database.write(apply):
            self._ensure_task(loaded)
        return await self._progress(loaded)

    async def progress(self, command: GetReEmbedding) -> ReEmbedding:
        """The progress of a gallery. Raises NotFound."""
        return await self._progress(self._catalog.find(command.gallery))

    async def _progress(self, loaded: LoadedGallery) -> ReEmbedding:
        def query(db: sqlite3.Connection) -> tuple[GalleryRow, EntryCounts, ReEmbeddingRow | None]:
            with read_transaction(db):
                row = require_gallery(db, loaded.row)
                return row, rows.count_entries(db, row.id), rows.select_reembedding(db, row.id)

        row, counts, last = await self._database.read(query)
        if self._catalog.is_current(row):
            counts = replace(counts, done=counts.entries, impossible=0)
            is_swapped = self._catalog.is_current(loaded.row)  # in memory, which follows the database
            return _result(row, "current" if is_swapped else "running", counts, last)
        if last is None or not self._steps.is_open(last):
            return _result(row, "needed", counts, None)
        state: ReEmbeddingState = "running" if self._is_running(row.id) else "stopped"
        return _result(row, state, counts, last, self._problems.get(row.id))

    def _ensure_task(self, loaded: LoadedGallery) -> None:
        if not self._is_running(loaded.row.id):
            self._problems.pop(loaded.row.id, None)
            self._tasks[loaded.row.id] = asyncio.create_task(self._run(loaded))

    def _is_running(self, gallery_id: int) -> bool:
        return gallery_id in self._tasks and not self._tasks[gallery_id].done()

    async def _run(self, loaded: LoadedGallery) -> None:
        after: int | None = 0
        while after is not None:
            try:
                async with self._turn:
                    after = await self._steps.step(loaded, after)
                self._problems.pop(loaded.row.id, None)
                self._report(loaded, failed=False)
            except (Cancelled, NotFound):
                self._report(loaded, failed=False)
                break
            except CropsMissing as error:
                self._problems[loaded.row.id] = str(error)
                self._report(loaded, failed=False)
                break
            except Exception as error:  # such as a full disk or a failing engine: it may recover
                if self._problems.get(loaded.row.id) != str(error):
                    log.exception("re-embedding failed and is tried again", extra={"gallery": loaded.row.name})
                self._problems[loaded.row.id] = str(error)
                self._report(loaded, failed=True)
                await asyncio.sleep(_RETRY_DELAY)

    def _report(self, loaded: LoadedGallery, *, failed: bool) -> None:
        if failed:
            self._failing.add(loaded.row.id)
        else:
            self._failing.discard(loaded.row.id)
        self.health.report(failed=bool(self._failing))


def _result(
    row: GalleryRow,
    state: ReEmbeddingState,
    counts: EntryCounts,
    last: ReEmbeddingRow | None,
    problem: str | None = None,
) -> ReEmbedding:
    erased = None
    if last is not None and last.finished_at is not None and last.dropped:
        erased = Erasure(last.dropped, last.overwritten, last.finished_at)
    return ReEmbedding(
        row.name, state, row.fingerprint, counts.entries, counts.done, counts.impossible, problem, erased
    )
