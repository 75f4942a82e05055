"""Which galleries there are: their rows in the database, and their vectors in memory.

The database is the truth and is written first. The galleries in memory follow each commit, each in the order of the
commits and on a thread that may wait for its searches: no other gallery and no other write waits for them.
"""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial

from pan_reid.schemas import IndexKind
from service.core.clock import now
from service.core.errors import Conflict, ModelMismatch, NotFound
from service.core.serial_executor import SerialExecutor
from service.galleries.loader import load_gallery
from service.index.gallery_index import Change, GalleryIndex
from service.observability.metrics import Metrics
from service.observability.worker import Worker
from service.storage import crops as kept_records
from service.storage import entries as records
from service.storage import galleries as gallery_records
from service.storage import reembedding as reembedding_records
from service.storage.audit import insert_audit
from service.storage.connection import read_transaction
from service.storage.database import Database
from service.storage.entry_integrity import most_common_dim
from service.storage.galleries import GalleryRow
from service.storage.gallery_integrity import examine_gallery

log = logging.getLogger(__name__)

_EVERY = 5.0  # seconds


@dataclass(slots=True)
class LoadedGallery:
    """A gallery: what it is, its vectors in memory, and what brings both up to date."""

    row: GalleryRow
    memory: GalleryIndex
    follower: SerialExecutor
    stale: bool = False  # memory could not follow a commit, nor be made anew; it is tried again

    @property
    def entries(self) -> int:
        """How many there are, those that are set aside among them."""
        return len(self.memory) + len(self.memory.set_aside)


@dataclass(frozen=True, slots=True)
class Erasure:
    """How many entries were erased, and whether nothing of them is left in the database's files."""

    entries: int
    overwritten: bool


class GalleryCatalog:
    """The galleries of one database. Those of another model than the loaded one are searched by their own vectors only.
    Every change says who made it.
    """

    def __init__(
        self, database: Database, fingerprint: str, dim: int, metrics: Metrics, clock: Callable[[], int] = now
    ) -> None:
        self.clock = clock  # of retention; microseconds since 1970
        self._database = database
        self._fingerprint = fingerprint
        self._dim = dim
        self._held: dict[str, LoadedGallery] = {}  # by name; replaced, never changed, so that others may go through it
        metrics.watch_galleries(
            lambda: {held.row.name: (held.entries, len(held.memory.set_aside)) for held in self.all()}
        )
        self.set_aside: dict[str, str] = {}  # damaged galleries by name, with what is wrong; none of them is served
        metrics.galleries_set_aside.set_function(lambda: len(self.set_aside))
        self._exchanging = threading.Lock()
        self._worker = Worker("galleries in memory", self._refresh_stale, _EVERY, metrics)
        self.health = self._worker.health

    def running(self) -> AbstractAsyncContextManager[None]:
        """Try again to make those anew that could not follow a commit."""
        return self._worker.running()

    async def load(self) -> None:
        """Rebuild every gallery in memory; galleries and entries that are damaged are set aside."""
        for row in await self._database.read(gallery_records.select_galleries):
            if row.name.startswith(gallery_records.IMPORT_PREFIX):
                self.drop_import(row)
                continue
            numbers = await self._database.read(partial(most_common_dim, gallery_id=row.id, dim=row.dim))
            if (damage := examine_gallery(asdict(row), numbers)) is not None:
                self.set_aside[row.name] = damage.problem
                log.error(
                    "a gallery is damaged and not served; stop the service and see `pan-serve check`",
                    extra={"gallery": row.name, "damage": damage.problem},
                )
                continue
            self._hold(row, await self._database.read(partial(self.rebuilt, row)))

    async def begin_import(
        self, hidden: str, name: str, purpose: str, retention: int | None, keep_crops: bool
    ) -> GalleryRow:
        """A gallery of this model that nobody sees. Raises Conflict when the name it is to have is taken."""
        if name in self._held:
            raise _taken(name)
        return await self._database.write(
            lambda db: gallery_records.insert_gallery(
                db, hidden, purpose, "auto", self._fingerprint, self._dim, retention, keep_crops
            )
        )

    async def finish_import(self, who: str, name: str, row: GalleryRow) -> None:
        """Give it its name, and its place among the others. Raises Conflict when the name is taken."""
        memory = await self._database.read(partial(self.rebuilt, row))

        def apply(db: sqlite3.Connection) -> GalleryRow:
            try:
                gallery_records.rename_gallery(db, row.id, name)
            except sqlite3.IntegrityError:
                raise _taken(name) from None
            insert_audit(db, who, "import", name, len(memory))
            return replace(row, name=name)

        await self._database.write(apply, lambda named: self._hold(named, memory))

    def drop_import(self, row: GalleryRow) -> None:
        """Delete what came of it; should that fail, the next start does so."""

        def apply(db: sqlite3.Connection) -> None:
            left = gallery_records.select_gallery(db, row.id)
            if left is not None and left.name.startswith(gallery_records.IMPORT_PREFIX):
                gallery_records.delete_gallery(db, row.id)

        self._database.submit_write(apply)

    def all(self) -> list[LoadedGallery]:
        """Every gallery, by name. Any of them may be deleted meanwhile."""
        return list(self._held.values())

    def is_current(self, row: GalleryRow) -> bool:
        """Whether its vectors are of the loaded model."""
        return (row.fingerprint, row.dim) == (self._fingerprint, self._dim)

    def require_current(self, row: GalleryRow) -> None:
        """Raises ModelMismatch where its vectors are of another model than the loaded one."""
        if not self.is_current(row):
            raise ModelMismatch(
                f"gallery {row.name} was enrolled with model {row.fingerprint[:12]}, and {self._fingerprint[:12]} "
                "is loaded: vectors of two models cannot be compared; start the service with the gallery's bundle, "
                f"or let `pan-serve re-embed {row.name}` bring its kept crops to the loaded model"
            )

    def for_search(self, name: str) -> tuple[GalleryRow, GalleryIndex]:
        """A gallery as it is and its vectors, both of one model. Raises NotFound."""
        held = self.snapshot(name)
        return held.row, held.memory

    def snapshot(self, name: str) -> LoadedGallery:
        """As `for_search`, for what looks after the gallery."""
        held = self.find(name)
        with self._exchanging:
            return replace(held)

    async def create(
        self,
        who: str,
        name: str,
        purpose: str,
        index_kind: IndexKind,
        retention: int | None = None,
        keep_crops: bool = False,
    ) -> LoadedGallery:
        """Raises Conflict when the name is taken."""

        def apply(db: sqlite3.Connection) -> GalleryRow:
            try:
                row = gallery_records.insert_gallery(
                    db, name, purpose, index_kind, self._fingerprint, self._dim, retention, keep_crops
                )
            except sqlite3.IntegrityError:
                raise _taken(name) from None
            insert_audit(db, who, "create-gallery", name, 0)
            return row

        await self._database.write(apply, lambda row: self._hold(row, GalleryIndex(self._dim, retention, self.clock)))
        return self.find(name)

    async def update(self, who: str, name: str, change: Callable[[GalleryRow], GalleryRow]) -> LoadedGallery:
        """Change the purpose, the index, the retention, or whether crops are kept; those that were are erased where
        they are to be no more. Raises NotFound.
        """
        held = self.find(name)

        def apply(db: sqlite3.Connection) -> GalleryRow:
            before = require(db, held.row)
            row = change(before)
            if before.keep_crops and not row.keep_crops:
                insert_audit(db, who, "erase-crops", name, kept_records.delete_crops(db, row.id))
                reembedding_records.delete_unfinished(db, row.id)
            gallery_records.update_gallery(db, row)
            insert_audit(db, who, "update-gallery", name, 0)
            return row

        kept = held.row.keep_crops
        row = await self._database.write(
            apply, lambda row: held.follower.submit(lambda: self._guarded(held, lambda: self._describe(held, row)))
        )
        if kept and not row.keep_crops:
            await self._database.truncate_wal()
        return held

    async def delete(self, who: str, name: str) -> Erasure:
        """Erase a gallery with all it holds. Raises NotFound."""
        row = self.find(name).row

        def apply(db: sqlite3.Connection) -> int:
            require(db, row)
            count = gallery_records.delete_gallery(db, row.id)
            insert_audit(db, who, "delete-gallery", name, count)
            return count

        def committed(_: int) -> None:
            self._held = {name: held for name, held in self._held.items() if held.row.id != row.id}

        count = await self._database.write(apply, committed)
        return Erasure(count, await self._database.truncate_wal())

    def find(self, name: str) -> LoadedGallery:
        """Raises NotFound."""
        try:
            return self._held[name]
        except KeyError:
            if name in self.set_aside:
                raise NotFound(
                    f"gallery {name} is damaged and not served ({self.set_aside[name]}); stop the service and see "
                    "`pan-serve check`"
                ) from None
            raise NotFound(f"there is no gallery {name}; GET /v1/galleries lists those there are") from None

    def rebuilt(self, row: GalleryRow, db: sqlite3.Connection, *, new_vectors: bool = False) -> GalleryIndex:
        """The vectors of a gallery in memory, as this connection sees them in one moment; see `load_gallery`."""
        with read_transaction(db):
            return self._loaded(row, db, new_vectors=new_vectors)

    def follow(self, held: LoadedGallery, change: Callable[[GalleryIndex], None]) -> "Future[None]":
        """Bring memory up to date with a commit, in its turn; where that fails, it is made anew from the database.

        For the writer's thread: it waits for nothing.
        """
        return held.follower.submit(lambda: self._guarded(held, lambda: change(held.memory)))

    def swap(
        self,
        held: LoadedGallery,
        row: GalleryRow,
        memory: GalleryIndex,
        before: GalleryIndex,
        changes: Sequence[Change],
    ) -> "Future[None]":
        """As `follow`: from its turn on the gallery is this, with `memory`, which `changes` bring up to date, recorded
        in `before`. Searches that run end in the former memory.
        """

        def install() -> None:
            if held.memory is not before:
                raise RuntimeError("the changes were recorded in memory that was given up meanwhile")
            memory.catch_up(changes)
            memory.retention = row.retention
            self._install(held, row, memory)

        return held.follower.submit(lambda: self._guarded(held, install))

    async def _refresh_stale(self) -> bool:
        stale = [held for held in self.all() if held.stale]
        for held in stale:
            try:
                await asyncio.wrap_future(held.follower.submit(partial(self._guarded, held, lambda: None)))
            except Exception:  # the others are made anew all the same
                log.exception("gallery in memory is behind the database", extra={"gallery": held.row.name})
        return not any(held.stale for held in stale)

    def _guarded(self, held: LoadedGallery, change: Callable[[], None]) -> None:
        try:
            if not held.stale:
                change()
                return
        except Exception:
            log.exception(
                "gallery in memory could not follow a commit; rebuilding it", extra={"gallery": held.row.name}
            )
            held.stale = True
        self._reload(held)
        held.stale = False

    def _reload(self, held: LoadedGallery) -> None:
        """Make a gallery anew from the database, also with what was committed since and is still to be followed."""

        def load(db: sqlite3.Connection) -> tuple[GalleryRow, GalleryIndex] | None:
            with read_transaction(db):
                row = gallery_records.select_gallery(db, held.row.id)
                return None if row is None else (row, self._loaded(row, db))

        if (found := self._database.submit_read(load).result()) is not None:
            self._install(held, *found)

    def _loaded(self, row: GalleryRow, db: sqlite3.Connection, *, new_vectors: bool = False) -> GalleryIndex:
        memory = load_gallery(row, self.clock, db, new_vectors=new_vectors)
        memory.segment.metadata.last = records.last_assigned_id(db)
        return memory

    def _install(self, held: LoadedGallery, row: GalleryRow, memory: GalleryIndex) -> None:
        with self._exchanging:
            held.row, held.memory = row, memory

    def _describe(self, held: LoadedGallery, row: GalleryRow) -> None:
        with self._exchanging:  # the model is that of the vectors in memory
            held.row = replace(row, fingerprint=held.row.fingerprint, dim=held.row.dim)
        held.memory.retention = row.retention

    def _hold(self, row: GalleryRow, memory: GalleryIndex) -> None:
        held = {**self._held, row.name: LoadedGallery(row, memory, self._database.post_commit_executor())}
        self._held = dict(sorted(held.items()))


def _taken(name: str) -> Conflict:
    return Conflict(f"there is a gallery {name} already; choose another name or delete it first")


def require(db: sqlite3.Connection, row: GalleryRow) -> GalleryRow:
    """What the gallery is now: another request may have changed or deleted it while this one waited."""
    current = gallery_records.select_gallery(db, row.id)
    if current is None:
        raise NotFound(f"gallery {row.name} was deleted meanwhile")
    return current
