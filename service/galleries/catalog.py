"""The galleries in memory: their rows, and an index of their vectors that follows every commit.

The database is the truth and is written first. Each gallery applies its commits in their order, on a thread that may
wait for searches of this gallery. Other galleries and other writes do not wait for it.
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

from service.core.clock import now
from service.core.errors import ModelMismatch, NotFound
from service.core.serial_executor import SerialExecutor
from service.galleries.loader import load_gallery
from service.index.gallery_index import Change, GalleryIndex
from service.observability.metrics import Metrics
from service.observability.worker import Worker
from service.storage import entries as records
from service.storage import galleries as gallery_records
from service.storage.connection import read_transaction
from service.storage.database import Database
from service.storage.entry_integrity import most_common_dim
from service.storage.galleries import GalleryRow
from service.storage.gallery_integrity import examine_gallery

log = logging.getLogger(__name__)

_INTERVAL = 5.0  # seconds between attempts to reload an index that is behind the database


@dataclass(slots=True)
class LoadedGallery:
    """A gallery: its row, the index of its vectors, and the executor that applies its commits."""

    row: GalleryRow
    memory: GalleryIndex
    post_commit: SerialExecutor
    stale: bool = False  # the index is behind the database, and could not be reloaded yet

    @property
    def entries(self) -> int:
        """The number of entries, including damaged ones."""
        return len(self.memory) + len(self.memory.set_aside)


class GalleryCatalog:
    """The galleries of one database, by name. Lookups are safe on any thread."""

    def __init__(
        self, database: Database, fingerprint: str, dim: int, metrics: Metrics, clock: Callable[[], int] = now
    ) -> None:
        """`fingerprint` and `dim` are those of the loaded model. `clock` gives microseconds since 1970."""
        self.clock = clock
        self.fingerprint = fingerprint
        self.dim = dim
        self.set_aside: dict[str, str] = {}  # damaged galleries that are not served: name to damage
        self._database = database
        self._loaded: dict[str, LoadedGallery] = {}  # replaced as a whole, so that other threads can iterate over it
        self._swap_lock = threading.Lock()
        self._worker = Worker("galleries in memory", self._refresh_stale, _INTERVAL, metrics)
        self.health = self._worker.health
        metrics.watch_galleries(
            lambda: {loaded.row.name: (loaded.entries, len(loaded.memory.set_aside)) for loaded in self.all()}
        )
        metrics.galleries_set_aside.set_function(lambda: len(self.set_aside))

    def running(self) -> AbstractAsyncContextManager[None]:
        """Reload indexes that are behind the database while the context is open."""
        return self._worker.running()

    async def load(self) -> None:
        """Build the index of every gallery. Damaged galleries and entries are set aside, unfinished imports deleted."""
        for row in await self._database.read(gallery_records.select_galleries):
            if row.name.startswith(gallery_records.IMPORT_PREFIX):
                self._database.submit_write(partial(gallery_records.delete_gallery, gallery_id=row.id))
                continue
            numbers = await self._database.read(partial(most_common_dim, gallery_id=row.id, dim=row.dim))
            if (damage := examine_gallery(asdict(row), numbers)) is not None:
                self.set_aside[row.name] = damage.problem
                log.error(
                    "a gallery is damaged and not served; stop the service and run `pan-serve check`",
                    extra={"gallery": row.name, "damage": damage.problem},
                )
                continue
            self.add(row, await self._database.read(partial(self.rebuilt, row)))

    def all(self) -> list[LoadedGallery]:
        """Every gallery, sorted by name."""
        return list(self._loaded.values())

    @property
    def damaged_entries(self) -> int:
        """The number of entries that are set aside, over all galleries."""
        return sum(len(loaded.memory.set_aside) for loaded in self._loaded.values())

    def __contains__(self, name: str) -> bool:
        return name in self._loaded

    def find(self, name: str) -> LoadedGallery:
        """The gallery of this name. Raises NotFound."""
        try:
            return self._loaded[name]
        except KeyError:
            if name in self.set_aside:
                raise NotFound(
                    f"gallery {name} is damaged and not served ({self.set_aside[name]}); stop the service and run "
                    "`pan-serve check`"
                ) from None
            raise NotFound(f"there is no gallery {name}; GET /v1/galleries lists the galleries") from None

    def snapshot(self, name: str) -> LoadedGallery:
        """A copy of the gallery of this name, whose row and index are of the same model. Raises NotFound."""
        loaded = self.find(name)
        with self._swap_lock:
            return replace(loaded)

    def is_current(self, row: GalleryRow) -> bool:
        """Whether the vectors of a gallery are of the loaded model."""
        return (row.fingerprint, row.dim) == (self.fingerprint, self.dim)

    def require_current(self, row: GalleryRow) -> None:
        """Raises ModelMismatch if the vectors of a gallery are of another model than the loaded one."""
        if not self.is_current(row):
            raise ModelMismatch(
                f"gallery {row.name} was enrolled with model {row.fingerprint[:12]}, and {self.fingerprint[:12]} "
                "is loaded: vectors of two models cannot be compared; start the service with the gallery's bundle, "
                f"or run `pan-serve re-embed {row.name}` to embed its kept crops with the loaded model"
            )

    def add(self, row: GalleryRow, memory: GalleryIndex) -> None:
        """Serve a gallery. Call it after its commit, on the writer's thread."""
        loaded = {**self._loaded, row.name: LoadedGallery(row, memory, self._database.post_commit_executor())}
        self._loaded = dict(sorted(loaded.items()))

    def remove(self, gallery_id: int) -> None:
        """Stop serving a gallery. Call it after the commit of its deletion, on the writer's thread."""
        self._loaded = {name: loaded for name, loaded in self._loaded.items() if loaded.row.id != gallery_id}

    def rebuilt(self, row: GalleryRow, db: sqlite3.Connection, *, new_vectors: bool = False) -> GalleryIndex:
        """The index of a gallery in the state that this connection sees; see `load_gallery`."""
        with read_transaction(db):
            return self._rebuilt(row, db, new_vectors=new_vectors)

    def apply_committed(self, loaded: LoadedGallery, change: Callable[[GalleryIndex], None]) -> "Future[None]":
        """Apply a commit to the index, after the commits before it. If that fails, reload it from the database.

        Call it on the writer's thread. It does not wait.
        """
        return loaded.post_commit.submit(lambda: self._apply_or_reload(loaded, lambda: change(loaded.memory)))

    def apply_settings(self, loaded: LoadedGallery, row: GalleryRow) -> "Future[None]":
        """As `apply_committed`, for a commit that changed the settings of a gallery."""

        def apply() -> None:
            with self._swap_lock:  # the model stays the one of the index in memory
                loaded.row = replace(row, fingerprint=loaded.row.fingerprint, dim=loaded.row.dim)
            loaded.memory.retention = row.retention

        return loaded.post_commit.submit(lambda: self._apply_or_reload(loaded, apply))

    def swap(
        self,
        loaded: LoadedGallery,
        row: GalleryRow,
        memory: GalleryIndex,
        before: GalleryIndex,
        changes: Sequence[Change],
    ) -> "Future[None]":
        """As `apply_committed`, for a commit that replaced all vectors: serve `row` and `memory` instead of `before`.

        `changes` were recorded in `before` while `memory` was built, and are applied to it. Running searches finish on
        the old index.
        """

        def apply() -> None:
            if loaded.memory is not before:
                raise RuntimeError("the index in which the changes were recorded has been replaced meanwhile")
            memory.catch_up(changes)
            memory.retention = row.retention
            self._install(loaded, row, memory)

        return loaded.post_commit.submit(lambda: self._apply_or_reload(loaded, apply))

    async def _refresh_stale(self) -> bool:
        stale = [loaded for loaded in self.all() if loaded.stale]
        for loaded in stale:
            try:
                await asyncio.wrap_future(
                    loaded.post_commit.submit(partial(self._apply_or_reload, loaded, lambda: None)),
                )
            except Exception:  # the other galleries are reloaded all the same
                log.exception("the index of a gallery is behind the database", extra={"gallery": loaded.row.name})
        return not any(loaded.stale for loaded in stale)

    def _apply_or_reload(self, loaded: LoadedGallery, apply: Callable[[], None]) -> None:
        try:
            if not loaded.stale:
                apply()
                return
        except Exception:
            log.exception("a commit was not applied to the index; reloading it", extra={"gallery": loaded.row.name})
            loaded.stale = True
        self._reload(loaded)
        loaded.stale = False

    def _reload(self, loaded: LoadedGallery) -> None:
        """Build the index from the database. It includes commits that are still to be applied."""

        def load(db: sqlite3.Connection) -> tuple[GalleryRow, GalleryIndex] | None:
            with read_transaction(db):
                row = gallery_records.select_gallery(db, loaded.row.id)
                return None if row is None else (row, self._rebuilt(row, db))

        if (found := self._database.submit_read(load).result()) is not None:
            self._install(loaded, *found)

    def _rebuilt(self, row: GalleryRow, db: sqlite3.Connection, *, new_vectors: bool = False) -> GalleryIndex:
        memory = load_gallery(row, self.clock, db, new_vectors=new_vectors)
        memory.segment.metadata.last = records.last_assigned_id(db)
        return memory

    def _install(self, loaded: LoadedGallery, row: GalleryRow, memory: GalleryIndex) -> None:
        with self._swap_lock:
            loaded.row, loaded.memory = row, memory


def require_gallery(db: sqlite3.Connection, row: GalleryRow) -> GalleryRow:
    """The current row of a gallery. Raises NotFound if it was deleted after `row` was read."""
    current = gallery_records.select_gallery(db, row.id)
    if current is None:
        raise deleted_meanwhile(row.name)
    return current


def deleted_meanwhile(name: str) -> NotFound:
    """The error of a command whose gallery was deleted while it ran."""
    return NotFound(f"gallery {name} was deleted meanwhile")
