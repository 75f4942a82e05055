"""The steps of a re-embedding: embed a few crops, switch to the new vectors, move these to their place.

The new vectors are read into memory before one small transaction makes them the valid ones, wherever they are stored.
Only then are they moved, a few at a time.
"""

import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

from bundle import ImageError
from service.core.clock import now
from service.core.errors import CropsMissing
from service.galleries.catalog import GalleryCatalog, LoadedGallery, require_gallery
from service.inference.embedder import Embedder
from service.storage import galleries as gallery_records
from service.storage import reembedding as rows
from service.storage.audit import insert_audit
from service.storage.database import Database
from service.storage.galleries import GalleryRow
from service.storage.reembedding import EntryCounts, ReEmbeddingRow

log = logging.getLogger(__name__)

_BATCH = 4  # crops; a request waits for one batch at most
_MOVED = 500  # vectors of a commit
_CALLER = "(service)"  # in the audit log; no key has such a name


class Cancelled(Exception):
    """The re-embedding was cancelled, or its gallery was deleted."""


class ReEmbeddingSteps:
    """What to do next for a gallery. Every step is on disk when it returns."""

    def __init__(self, database: Database, catalog: GalleryCatalog, embedder: Embedder) -> None:
        self._database = database
        self._catalog = catalog
        self._embedder = embedder

    def is_open(self, row: ReEmbeddingRow) -> bool:
        """Whether a re-embedding to the loaded model has begun and is not finished."""
        return row.finished_at is None and row.fingerprint == self._catalog.fingerprint

    async def step(self, loaded: LoadedGallery, after: int) -> int | None:
        """Do the next step for entries with ids greater than `after`.

        Returns the last entry of the step, 0 to start again with the first entry, None when everything is done.
        Raises Cancelled, CropsMissing, a storage error, or the errors of `Embedder.embed`.
        """
        gallery_id = loaded.row.id
        row = await self._database.read(partial(rows.select_reembedding, gallery_id=gallery_id))
        if row is not None and row.finished_at is not None:
            return await self._database.write(
                partial(rows.migrate_vectors, gallery_id=gallery_id, after=after, limit=_MOVED)
            )
        if row is None or not self.is_open(row):
            return None
        last = await self._embed_batch(loaded, after)
        if last is None and after == 0:
            await self._switch(loaded)
        return last or 0

    async def _embed_batch(self, loaded: LoadedGallery, after: int) -> int | None:
        """The last entry that was embedded; None if none was left."""
        page = await self._database.read(
            partial(rows.select_pending, gallery_id=loaded.row.id, after=after, limit=_BATCH)
        )
        if not page:
            return None
        ids, images = zip(*page, strict=True)
        outcomes = await self._embedder.embed_background(images)
        vectors = [None if isinstance(outcome, ImageError) else outcome for outcome in outcomes]

        def apply(db: sqlite3.Connection) -> None:
            self._require_open(db, loaded)
            rows.insert_new_vectors(db, ids, vectors)

        await self._database.write(apply)
        last: int = ids[-1]
        return last

    async def _switch(self, loaded: LoadedGallery) -> None:
        """Make the new vectors the valid ones, unless an entry has none yet. Raises CropsMissing.

        Changes that are committed while the new index is built are recorded and applied to it.
        """
        before = loaded.memory
        new_model = replace(loaded.row, fingerprint=self._catalog.fingerprint, dim=self._catalog.dim)
        with before.recording() as changes:
            memory = await self._database.read(partial(self._catalog.rebuilt, new_model, new_vectors=True))
            is_switched = await self._commit_switch(
                loaded, lambda row: self._catalog.swap(loaded, row, memory, before, changes)
            )
        if not is_switched:
            return
        log.info("re-embedded", extra={"gallery": loaded.row.name})
        overwritten = await self._database.truncate_wal()
        await self._database.write(lambda db: rows.update_overwritten(db, loaded.row.id, overwritten))

    async def _commit_switch(self, loaded: LoadedGallery, swap: "Callable[[GalleryRow], Future[None]]") -> bool:
        def apply(db: sqlite3.Connection) -> GalleryRow | None:
            row, open_row = self._require_open(db, loaded)
            counts = rows.count_entries(db, row.id)
            if counts.done + counts.impossible < counts.entries:
                return None
            if counts.impossible > open_row.max_dropped:
                raise crops_missing(row.name, counts)
            dropped = rows.delete_impossible(db, row.id) if counts.impossible else 0
            row = replace(row, fingerprint=self._catalog.fingerprint, dim=self._catalog.dim)
            gallery_records.set_model(db, row)
            rows.upsert_reembedding(db, replace(open_row, finished_at=now(), dropped=dropped))
            if dropped:
                insert_audit(db, _CALLER, "drop-without-crop", row.name, dropped)
            insert_audit(db, _CALLER, "re-embedded", row.name, counts.done)
            return row

        def on_commit(row: GalleryRow | None) -> "Future[None] | None":
            return None if row is None else swap(row)

        return await self._database.write(apply, on_commit) is not None

    def _require_open(self, db: sqlite3.Connection, loaded: LoadedGallery) -> tuple[GalleryRow, ReEmbeddingRow]:
        row = require_gallery(db, loaded.row)
        open_row = rows.select_reembedding(db, row.id)
        if open_row is None or not self.is_open(open_row):
            raise Cancelled
        return row, open_row


def crops_missing(name: str, counts: EntryCounts) -> CropsMissing:
    """The error of a re-embedding that would lose entries."""
    return CropsMissing(
        f"{counts.impossible} of {counts.entries} entries of gallery {name} have no kept crop, or one that cannot be "
        "used, so the loaded model cannot embed them: allow that they are erased at the end (drop_without_crop, or "
        "`pan-serve re-embed --drop-without-crop`), or start the service with the gallery's bundle and enrol them again"
    )
