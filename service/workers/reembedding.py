"""A gallery's way to the loaded model: every kept crop is embedded again, beside the requests, and then all at once.

Until then the gallery is what it was, with all its changes. What was done is on disk batch by batch, so it goes on
where it was after any stop: by itself, when the model it goes to is loaded again. At the end one small transaction says
that the new vectors are the ones that count, wherever they lie; only then are they moved to their place, bit by bit.
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from bundle import ImageError
from service.core.clock import now
from service.core.errors import Conflict, CropsMissing, NotFound
from service.galleries.catalog import GalleryCatalog, LoadedGallery, require
from service.inference.embedder import Embedder
from service.observability.metrics import Metrics
from service.observability.worker import WorkerHealth
from service.storage import galleries as gallery_records
from service.storage import reembedding as rows
from service.storage.audit import insert_audit
from service.storage.connection import read_transaction
from service.storage.database import Database
from service.storage.galleries import GalleryRow
from service.storage.reembedding import EntryCounts, ReEmbeddingRow

log = logging.getLogger(__name__)

_BATCH = 4  # a request waits for one of these at most
_SETTLED = 500  # vectors of a commit
_PAUSE = 5.0  # seconds after a failure
_NOBODY = "(service)"  # in the audit; no key has such a name

State = Literal["current", "needed", "running", "stopped"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a gallery is. `last` is its last way to a model; `problem` says why it does not go on."""

    row: GalleryRow
    state: State
    counts: EntryCounts
    last: ReEmbeddingRow | None
    problem: str | None


class _Cancelled(Exception):
    """Somebody no longer wants it, or the gallery is gone."""


class ReEmbedder:
    """Lives on one event loop; one gallery at a time, and behind all requests."""

    def __init__(
        self, database: Database, galleries: GalleryCatalog, embedder: Embedder, fingerprint: str, metrics: Metrics
    ) -> None:
        """`fingerprint` is that of the model that `embedder` runs."""
        self._database = database
        self._galleries = galleries
        self._embedder = embedder
        self._fingerprint = fingerprint
        self._turn = asyncio.Lock()
        self._tasks: dict[int, asyncio.Task[None]] = {}  # by gallery
        self._problems: dict[int, str] = {}
        self._waiting: set[int] = set()  # galleries whose last step failed
        self.health = WorkerHealth("re-embedding", metrics)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Go on with what was not finished."""
        begun = await self._database.read(rows.select_reembedding_ids)
        for held in self._galleries.all():
            if held.row.id in begun:
                self._go_on(held)
        try:
            yield
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def start(self, who: str, name: str, drop: bool) -> Progress:
        """Begin or go on; nothing to do where the gallery is of the loaded model. With `drop`, entries that keep no
        picture, as many as there are now, are erased at the end; to go on it need not be said again.

        Raises NotFound, CropsMissing, Conflict, or a storage error.
        """
        held = self._galleries.find(name)

        def apply(db: sqlite3.Connection) -> bool:
            row = require(db, held.row)
            if self._galleries.is_current(row):
                return False
            last = rows.select_reembedding(db, row.id)
            if last is not None and last.finished_at is not None and not rows.is_migrated(db, row.id):
                raise Conflict(f"gallery {name} has just come from another model and is being settled; ask again")
            if last is None or not self._is_open(last):
                rows.delete_unfinished(db, row.id)
                last = ReEmbeddingRow(row.id, self._fingerprint, max_dropped=0)
            if not drop:
                rows.reset_failed(db, row.id)
            counts = rows.count_entries(db, row.id)
            if drop:
                last = replace(last, max_dropped=counts.impossible)
            elif counts.impossible > last.max_dropped:
                raise _missing(name, counts)
            rows.upsert_reembedding(db, last)
            insert_audit(db, who, "re-embed", name, counts.entries)
            return True

        if await self._database.write(apply):
            self._go_on(held)
        return await self.progress(name)

    async def progress(self, name: str) -> Progress:
        """Raises NotFound."""
        held = self._galleries.find(name)

        def query(db: sqlite3.Connection) -> tuple[GalleryRow, EntryCounts, ReEmbeddingRow | None]:
            with read_transaction(db):
                row = require(db, held.row)
                return row, rows.count_entries(db, row.id), rows.select_reembedding(db, row.id)

        row, counts, last = await self._database.read(query)
        if self._galleries.is_current(row):
            counts = replace(counts, done=counts.entries, impossible=0)
            exchanged = self._galleries.is_current(held.row)  # in memory, which follows the disk
            return Progress(row, "current" if exchanged else "running", counts, last, None)
        if last is None or not self._is_open(last):
            return Progress(row, "needed", counts, None, None)
        state: State = "running" if self._is_running(row.id) else "stopped"
        return Progress(row, state, counts, last, self._problems.get(row.id))

    def _go_on(self, held: LoadedGallery) -> None:
        if not self._is_running(held.row.id):
            self._problems.pop(held.row.id, None)
            self._tasks[held.row.id] = asyncio.create_task(self._run(held))

    def _is_open(self, row: ReEmbeddingRow) -> bool:
        return row.finished_at is None and row.fingerprint == self._fingerprint

    def _is_running(self, gallery_id: int) -> bool:
        return gallery_id in self._tasks and not self._tasks[gallery_id].done()

    async def _run(self, held: LoadedGallery) -> None:
        after: int | None = 0
        while after is not None:
            try:
                async with self._turn:
                    after = await self._step(held, after)
                self._problems.pop(held.row.id, None)
                self._report(held, failed=False)
            except (_Cancelled, NotFound):
                self._report(held, failed=False)
                break
            except CropsMissing as error:
                self._problems[held.row.id] = str(error)
                self._report(held, failed=False)
                break
            except Exception as error:  # a full disk, an engine that fails: it may be better in a while
                if self._problems.get(held.row.id) != str(error):
                    log.exception("re-embedding waits", extra={"gallery": held.row.name})
                self._problems[held.row.id] = str(error)
                self._report(held, failed=True)
                await asyncio.sleep(_PAUSE)

    def _report(self, held: LoadedGallery, *, failed: bool) -> None:
        if failed:
            self._waiting.add(held.row.id)
        else:
            self._waiting.discard(held.row.id)
        self.health.report(failed=bool(self._waiting))

    async def _step(self, held: LoadedGallery, after: int) -> int | None:
        """Do what comes next, for entries over `after`; the last of them, 0 to begin at the first, None at the end."""
        id_ = held.row.id
        row = await self._database.read(partial(rows.select_reembedding, gallery_id=id_))
        if row is not None and row.finished_at is not None:
            return await self._database.write(
                partial(rows.migrate_vectors, gallery_id=id_, after=after, limit=_SETTLED)
            )
        if row is None or not self._is_open(row):
            return None
        last = await self._embed_some(held, after)
        if last is None and after == 0:
            await self._exchange(held)
        return last or 0

    async def _embed_some(self, held: LoadedGallery, after: int) -> int | None:
        """The last entry of those that were embedded; None where none was left."""
        id_ = held.row.id
        page = await self._database.read(partial(rows.select_pending, gallery_id=id_, after=after, limit=_BATCH))
        if not page:
            return None
        ids, images = zip(*page, strict=True)
        outcomes = await self._embedder.embed_background(images)
        vectors = [None if isinstance(outcome, ImageError) else outcome for outcome in outcomes]

        def apply(db: sqlite3.Connection) -> None:
            self._require_wanted(db, held)
            rows.insert_new_vectors(db, ids, vectors)

        await self._database.write(apply)
        last: int = ids[-1]
        return last

    async def _exchange(self, held: LoadedGallery) -> None:
        """From here on the gallery's vectors are the new ones, unless some entry has none yet. Raises CropsMissing.

        They are read into memory before the small transaction that says so, and what is changed meanwhile is caught up
        with after it.
        """
        before = held.memory
        new_model = replace(held.row, fingerprint=self._fingerprint, dim=self._embedder.dim)
        with before.recording() as changes:
            memory = await self._database.read(partial(self._galleries.rebuilt, new_model, new_vectors=True))
            exchanged = await self._commit_exchange(
                held, lambda row: self._galleries.swap(held, row, memory, before, changes)
            )
        if not exchanged:
            return
        log.info("re-embedded", extra={"gallery": held.row.name})
        overwritten = await self._database.truncate_wal()
        await self._database.write(lambda db: rows.update_overwritten(db, held.row.id, overwritten))

    async def _commit_exchange(self, held: LoadedGallery, exchange: "Callable[[GalleryRow], Future[None]]") -> bool:
        def apply(db: sqlite3.Connection) -> GalleryRow | None:
            row, wanted = self._require_wanted(db, held)
            counts = rows.count_entries(db, row.id)
            if counts.done + counts.impossible < counts.entries:
                return None
            if counts.impossible > wanted.max_dropped:
                raise _missing(row.name, counts)
            dropped = rows.delete_impossible(db, row.id) if counts.impossible else 0
            row = replace(row, fingerprint=self._fingerprint, dim=self._embedder.dim)
            gallery_records.set_model(db, row)
            rows.upsert_reembedding(db, replace(wanted, finished_at=now(), dropped=dropped))
            if dropped:
                insert_audit(db, _NOBODY, "drop-without-crop", row.name, dropped)
            insert_audit(db, _NOBODY, "re-embedded", row.name, counts.done)
            return row

        def committed(row: GalleryRow | None) -> Future[None] | None:
            return None if row is None else exchange(row)

        return await self._database.write(apply, committed) is not None

    def _require_wanted(self, db: sqlite3.Connection, held: LoadedGallery) -> tuple[GalleryRow, ReEmbeddingRow]:
        row = require(db, held.row)
        wanted = rows.select_reembedding(db, row.id)
        if wanted is None or not self._is_open(wanted):
            raise _Cancelled
        return row, wanted


def _missing(name: str, counts: EntryCounts) -> CropsMissing:
    return CropsMissing(
        f"{counts.impossible} of {counts.entries} entries of gallery {name} keep no picture, or one that cannot be "
        "used, so the loaded model cannot embed them: allow that they are erased at the end (drop_without_crop, or "
        "`pan-serve re-embed --drop-without-crop`), or start the service with the gallery's bundle and enrol them again"
    )
