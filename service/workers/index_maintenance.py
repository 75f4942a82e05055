"""Maintains the indexes of all galleries, on one thread with low priority: decides what to do, and saves the results.

An index is trained again when its recall is below the target, and when half of its rows were added or deleted since
its training.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from bundle import PanError
from service.batching.thread_priority import lower_priority
from service.core.errors import NotFound
from service.galleries.catalog import GalleryCatalog, LoadedGallery
from service.index.ann import state_kind
from service.index.choice import AnnKind, choose_kind
from service.index.exact import limit_to_one_core
from service.index.gallery_index import GalleryIndex
from service.index.segment import Segment
from service.observability.metrics import Metrics
from service.observability.worker import Worker
from service.storage.database import Database
from service.workers.index_builder import IndexBuilder
from service.workers.index_snapshots import Snapshots

log = logging.getLogger(__name__)

_INTERVAL = 1.0  # seconds between rounds
_RETRY_DELAY = 60.0  # seconds until a gallery whose maintenance failed is tried again
_PAUSE_FACTOR = 4.0  # pause of a gallery, in units of the time of its last work: so it takes at most a fifth of a core
_MAX_PAUSE = 30.0  # seconds
_MAX_STEPS = 4  # of a gallery in one round, so that it does not delay the others
_SAVE_GROWTH = 1.05  # a graph is saved again when it has this many times the rows of the last save


def prepare_thread() -> None:
    """Run the calling thread with low priority, on one core."""
    lower_priority()
    limit_to_one_core()


class _Stopped(Exception):
    """The service stops; unfinished work is dropped."""


class IndexMaintainer:
    """Runs in the background. Searches are correct without it, but slower."""

    def __init__(self, database: Database, catalog: GalleryCatalog, folder: Path, metrics: Metrics) -> None:
        """`folder` is for snapshots."""
        self._catalog = catalog
        self._metrics = metrics
        self._snapshots = Snapshots(folder, database)
        self._builder = IndexBuilder(catalog.clock, self._check_stopped)
        self._stopping = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="index-maintenance", initializer=prepare_thread)
        self._worker = Worker("index upkeep", self._run_round_off_loop, _INTERVAL, metrics)
        self.health = self._worker.health
        self._not_before: dict[int, float] = {}  # by gallery id
        self._failed: set[int] = set()  # gallery ids
        self._saved_rows: dict[int, int] = {}  # of graphs, by gallery id

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Maintain the indexes while the context is open. The next start repeats unfinished work."""
        try:
            async with self._worker.running():
                yield
        finally:
            self._stopping.set()
            await asyncio.to_thread(self._thread.shutdown)

    def run_once(self, loaded: LoadedGallery) -> bool:
        """Do the most urgent step for a gallery. Returns whether there was one.

        Raises NotFound if the gallery was deleted, OSError, or a storage error.
        """
        loaded = self._catalog.snapshot(loaded.row.name)  # row and index are of the same model
        gallery, started = loaded.memory, time.monotonic()
        self._invalidate_snapshot(loaded, gallery.segment)
        action = self._do_next(loaded, gallery, gallery.segment)
        if action is None:
            return False
        self._save(loaded, gallery.segment, action)
        seconds = time.monotonic() - started
        self._metrics.upkeep_seconds.labels(action).observe(seconds)
        fields = {"gallery": loaded.row.name, "done": action, "seconds": round(seconds, 1)}
        if (index := gallery.segment.ann) is not None and (measured := index.measured) is not None:
            fields |= {"recall": measured.recall, "recall_recent": measured.recall_recent}
            if not index.trusted:
                log.warning("the recall of an index is below its target: searches are exact", extra=fields)
        log.info("index", extra=fields)
        return True

    def _do_next(self, loaded: LoadedGallery, gallery: GalleryIndex, segment: Segment) -> str | None:
        """The action that was taken, for logs and metrics; None if there is nothing to do."""
        builder = self._builder
        kind, index = choose_kind(loaded.row.index_kind, len(gallery), loaded.row.dim), segment.ann
        if builder.needs_compaction(segment):
            builder.compact(gallery)
            return "compacted"
        if kind is None and index is not None:
            with gallery.lock.write():
                segment.ann = None
            return "dropped"
        if kind is not None:
            if index is None or index.kind != kind:
                if self._restore(loaded, gallery, kind):
                    return "restored"
                builder.train(gallery, kind)
                return "trained"
            if builder.needs_training(segment, index):
                builder.train(gallery, kind)
                return "trained"
            if builder.needs_measuring(segment, index):
                return "extended" if builder.extend(gallery, segment, index) else "measured"
        return "copied to the GPU" if builder.copy_to_gpu(gallery, segment) else None

    async def _run_round_off_loop(self) -> bool:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run_round)

    def _run_round(self) -> bool:
        """Maintain every gallery that is due. Returns whether no gallery fails at the moment."""
        galleries = self._catalog.all()
        self._not_before = {one.row.id: self._not_before.get(one.row.id, 0.0) for one in galleries}
        self._failed &= self._not_before.keys()
        try:
            for loaded in galleries:
                if (started := time.monotonic()) < self._not_before[loaded.row.id]:
                    continue
                if self._maintain(loaded):
                    self._failed.discard(loaded.row.id)
                    pause = min(_MAX_PAUSE, _PAUSE_FACTOR * (time.monotonic() - started))
                else:
                    self._failed.add(loaded.row.id)
                    pause = _RETRY_DELAY
                self._not_before[loaded.row.id] = time.monotonic() + pause
            self._sweep()
        except _Stopped:
            pass
        return not self._failed

    def _maintain(self, loaded: LoadedGallery) -> bool:
        """Do a few steps for a gallery. Returns False if one failed."""
        try:
            for _ in range(_MAX_STEPS):
                self._check_stopped()
                if not self.run_once(loaded):
                    break
        except _Stopped:
            raise
        except NotFound:
            pass
        except Exception:  # the thread must go on with the other galleries
            log.exception(
                "the maintenance of an index failed; searches are correct, but may be slower",
                extra={"gallery": loaded.row.name},
            )
            return False
        return True

    def _sweep(self) -> None:
        try:
            self._snapshots.sweep()
        except (OSError, PanError):
            log.exception("old snapshots could not be removed")

    def _restore(self, loaded: LoadedGallery, gallery: GalleryIndex, kind: AnnKind) -> bool:
        state = self._snapshots.load(loaded.row)
        if state is None or state_kind(state) != kind:
            return False
        saved_rows = len(state.get("entries", ()))
        index = self._builder.restore(gallery, state)
        if index is None:
            return False
        if index.follows_rows:
            self._saved_rows[loaded.row.id] = saved_rows
        return True

    def _save(self, loaded: LoadedGallery, segment: Segment, action: str) -> None:
        """Save the state of an index after training, and of a graph also after it has grown."""
        index = segment.ann
        if index is None:
            return
        if index.follows_rows:
            # A graph is large. It is not saved for every few rows: missing rows are added quickly after a start.
            saved = self._saved_rows.get(loaded.row.id, 0)
            if segment.metadata.deleted_count:  # see `_invalidate_snapshot`
                return
            if action != "trained" and len(index) < _SAVE_GROWTH * saved:
                return
            state = {**index.state(), "entries": segment.metadata.entries[index.nodes]}
            self._saved_rows[loaded.row.id] = len(index)
        elif action == "trained":
            state = index.state()
        else:
            return
        self._snapshots.save(loaded.row, state)

    def _invalidate_snapshot(self, loaded: LoadedGallery, segment: Segment) -> None:
        """Drop a saved graph once an entry is deleted: it shows which entries were near the deleted one."""
        if segment.metadata.deleted_count and self._saved_rows.pop(loaded.row.id, None) is not None:
            self._snapshots.invalidate(loaded.row)

    def _check_stopped(self) -> None:
        if self._stopping.is_set():
            raise _Stopped
