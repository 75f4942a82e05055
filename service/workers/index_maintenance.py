"""Keeps galleries quick: drops dead rows, trains, extends and measures indexes, and saves what training cost.

One thread for all galleries. Searches and changes go on meanwhile: it holds a gallery's lock for moments only, works on
one core, and at a low priority. Whatever an index holds is answered by it only after its recall was measured over
that; until then, and while the recall is below its target, searches are exact. An index is trained anew when that
happens, and when half of what it was trained on is gone or half of what is there came later.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from bundle import PanError
from service.batching.thread_priority import lower_priority
from service.core.errors import NotFound
from service.core.types import Rows
from service.galleries.catalog import GalleryCatalog, LoadedGallery
from service.index.ann import COMPONENTS, AnnIndex, principal_components, state_kind
from service.index.choice import AnnKind, choose_kind
from service.index.exact import limit_to_one_core
from service.index.gallery_index import GalleryIndex
from service.index.gpu import gpu_available
from service.index.metadata import MetadataTable
from service.index.reader import SegmentReader
from service.index.recall import Probes, add_missing, choose_probes, measure
from service.index.segment import Segment
from service.observability.metrics import Metrics
from service.observability.worker import Worker
from service.storage.database import Database
from service.workers.index_snapshots import Snapshots

log = logging.getLogger(__name__)

_INTERVAL = 1.0  # seconds
_AFTER_FAILURE = 60.0
_PAUSE = 4.0  # after work on a gallery, times as long as that took, so that it takes a fifth of a core at most
_LONGEST_PAUSE = 30.0
_MOST_AT_ONCE = 4  # pieces of work on a gallery, lest one that changes all the time keep others waiting
_FEW_DEAD = 64
_TAIL = 2**22  # numbers that are searched exactly besides, because their rows are not in the index yet: 0.5 ms
_DIED = 0.01  # share of rows whose deletion calls for another measurement
_TURNOVER = 0.5  # share of rows that came or went since training, from which on an index is trained anew
_SAMPLE = 65_536
_WORTH_SAVING = 1.05  # times as many rows as were saved


def _share_dead(segment: Segment) -> float:
    """The share of dead rows from which on a copy without them is made."""
    return 0.2 if segment.ann is None else min(0.2, 1.0 - segment.ann.min_live_fraction)


def _lower_priority() -> None:
    lower_priority()
    limit_to_one_core()


class _Stopped(Exception):
    """The service stops, and unfinished work with it."""


class IndexMaintainer:
    """Looks after every gallery that is searched."""

    def __init__(self, database: Database, galleries: GalleryCatalog, folder: Path, metrics: Metrics) -> None:
        self._galleries = galleries
        self._metrics = metrics
        self._snapshots = Snapshots(folder, database)
        self._stopping = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upkeep", initializer=_lower_priority)
        self._worker = Worker("index upkeep", self._tend_all_beside, _INTERVAL, metrics)
        self.health = self._worker.health
        self._not_before: dict[int, float] = {}  # by gallery
        self._failed: set[int] = set()
        self._saved_rows: dict[int, int] = {}  # of graphs, by gallery

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look after the galleries on a thread; what is unfinished at the end is begun anew after the next start."""
        try:
            async with self._worker.running():
                yield
        finally:
            self._stopping.set()
            await asyncio.to_thread(self._thread.shutdown)

    def run_once(self, held: LoadedGallery) -> bool:
        """Do the one thing that a gallery needs most; whether it needed any.

        Raises NotFound when it was deleted, OSError or a storage error.
        """
        held = self._galleries.snapshot(held.row.name)  # as one: a change of models exchanges both
        gallery, started = held.memory, time.monotonic()
        self._forget(held, gallery.segment)
        done = self._do_first(held, gallery, gallery.segment)
        if done is None:
            return False
        self._save(held, gallery.segment, done)
        seconds = time.monotonic() - started
        self._metrics.upkeep_seconds.labels(done).observe(seconds)
        told = {"gallery": held.row.name, "done": done, "seconds": round(seconds, 1)}
        if (index := gallery.segment.ann) is not None and (measured := index.measured) is not None:
            told |= {"recall": measured.recall, "recall_recent": measured.recall_recent}
            if not index.trusted:
                log.warning("the recall of an index is below its target: searches are exact", extra=told)
        log.info("index", extra=told)
        return True

    def _do_first(self, held: LoadedGallery, gallery: GalleryIndex, segment: Segment) -> str | None:
        """What was done, if there was anything to do."""
        kind, index = choose_kind(held.row.index_kind, len(gallery), held.row.dim), segment.ann
        if segment.metadata.deleted_count > max(_FEW_DEAD, _share_dead(segment) * len(segment)):
            gallery.compact(lambda columns, rows: self._copied(gallery, columns, rows))
            return "compacted"
        if kind is None:
            if index is None:
                return self._copy_to_gpu(gallery, segment)
            with gallery.lock.write():
                segment.ann = None
            return "dropped"
        if index is None or index.kind != kind:
            return "restored" if self._restore(held, gallery, kind) else self._train(gallery, kind)
        if self._needs_training(segment, index):
            return self._train(gallery, kind)
        if self._needs_measuring(segment, index):
            return self._extend(gallery, segment, index)
        return self._copy_to_gpu(gallery, segment)

    def _needs_training(self, segment: Segment, index: AnnIndex) -> bool:
        """Whether so much came or went since training that the index may have learnt another gallery."""
        alive, end = segment.metadata.live, np.searchsorted(segment.metadata.entries, index.trained_until, "right")
        left = int(np.count_nonzero(alive[:end]))  # of what it was trained on
        turnover = 1.0 - left / max(1, index.trained_rows, int(np.count_nonzero(alive)))
        return turnover > (_TURNOVER if index.trusted else index.retrain_after)

    def _needs_measuring(self, segment: Segment, index: AnnIndex) -> bool:
        if index.measured is None or (len(segment) - len(index)) * segment.exact.dim > _TAIL:
            return True
        return segment.metadata.deleted_count - index.measured.deleted_count > max(_FEW_DEAD, _DIED * len(segment))

    def _copy_to_gpu(self, gallery: GalleryIndex, segment: Segment) -> str | None:
        if not gpu_available() or len(segment) == 0:
            return None
        with gallery.lock.read():
            if segment.ann is None:
                made = segment.exact.copy_to_gpu(_TAIL // segment.exact.dim)
            else:
                made = segment.ann.copy_to_gpu()
        return "copied to the GPU" if made else None

    async def _tend_all_beside(self) -> bool:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._tend_all)

    def _tend_all(self) -> bool:
        """Whether all is well with every gallery."""
        held = self._galleries.all()
        self._not_before = {one.row.id: self._not_before.get(one.row.id, 0.0) for one in held}
        self._failed &= self._not_before.keys()
        try:
            for one in held:
                if (started := time.monotonic()) < self._not_before[one.row.id]:
                    continue
                if self._tended(one):
                    self._failed.discard(one.row.id)
                    pause = min(_LONGEST_PAUSE, _PAUSE * (time.monotonic() - started))
                else:
                    self._failed.add(one.row.id)
                    pause = _AFTER_FAILURE
                self._not_before[one.row.id] = time.monotonic() + pause
            self._sweep()
        except _Stopped:
            pass
        return not self._failed

    def _tended(self, held: LoadedGallery) -> bool:
        """Whether all is well with a gallery."""
        try:
            for _ in range(_MOST_AT_ONCE):
                self._check()
                if not self.run_once(held):
                    break
        except _Stopped:
            raise
        except NotFound:
            pass
        except Exception:  # a thread that ends unnoticed would leave galleries slow for good
            log.exception(
                "an index could not be looked after; searches stay right, and may be slower",
                extra={"gallery": held.row.name},
            )
            return False
        return True

    def _sweep(self) -> None:
        try:
            self._snapshots.sweep()
        except (OSError, PanError):
            log.exception("old snapshots could not be removed")

    def _copied(self, gallery: GalleryIndex, columns: MetadataTable, rows: Rows) -> Segment:
        old, new = gallery.segment, Segment(gallery.segment.exact.dim)
        new.metadata = columns
        for vectors in SegmentReader(old, gallery.lock, self._check).vectors(rows):
            new.exact.add(vectors)
        if old.ann is not None:
            approximate = old.ann.empty()
            self._fill(SegmentReader(new, gallery.lock, self._check), approximate)
            new.ann = approximate
        return new

    def _train(self, gallery: GalleryIndex, kind: AnnKind) -> str:
        segment, before = gallery.segment, gallery.segment.ann
        reader = SegmentReader(segment, gallery.lock, self._check)
        probes = self._probes(reader, None)
        alive = np.flatnonzero(reader.live(probes.covered))
        rows = np.setdiff1d(alive, probes.rows)
        sample = np.sort(np.random.default_rng(0).choice(rows, min(len(rows), _SAMPLE), replace=False))
        vectors = np.concatenate(list(reader.vectors(sample)))
        until = int(segment.metadata.entries[probes.covered - 1])
        components = principal_components(vectors, max(COMPONENTS))
        for count in COMPONENTS:
            projection = np.ascontiguousarray(components[:, :count])
            index = AnnIndex.train(kind, vectors, projection, len(alive), until)
            self._fill(reader, index, probes)
            if index.trusted or count >= segment.exact.dim:
                break
        if not index.trusted and before is not None:
            index.retrain_after = min(_TURNOVER, 2 * before.retrain_after)
        self._install(gallery, segment, index)
        return "trained"

    def _extend(self, gallery: GalleryIndex, segment: Segment, index: AnnIndex) -> str:
        """Add what an index lacks to it, and measure it; it answers for that from then on."""
        reader = SegmentReader(segment, gallery.lock, self._check)
        before = len(index)
        self._fill(reader, index)
        return "extended" if len(index) > before else "measured"

    def _restore(self, held: LoadedGallery, gallery: GalleryIndex, kind: AnnKind) -> bool:
        state = self._snapshots.load(held.row)
        if state is None or state_kind(state) != kind:
            return False
        segment = gallery.segment
        reader = SegmentReader(segment, gallery.lock, self._check)
        with gallery.lock.read():
            alive, entries = segment.metadata.live.copy(), segment.metadata.entries.copy()
        of_nodes = state.pop("entries", entries[:0])
        rows = np.searchsorted(entries, of_nodes)
        if not np.isin(of_nodes, entries[alive]).all():
            return False  # some of its nodes are gone
        approximate = AnnIndex.restored(state, rows, list(reader.vectors(rows)))
        self._fill(reader, approximate)
        self._install(gallery, segment, approximate)
        if approximate.follows_rows:
            self._saved_rows[held.row.id] = len(of_nodes)
        return True

    def _install(self, gallery: GalleryIndex, segment: Segment, index: AnnIndex) -> None:
        """Search by an index from now on, without the rows that died while it was filled."""
        with gallery.lock.write():
            if gallery.segment is segment:
                index.wipe(np.flatnonzero(index.holds(len(segment)) & ~segment.metadata.live))
                segment.ann = index

    def _probes(self, reader: SegmentReader, index: AnnIndex | None) -> Probes:
        """The newest are those that came since the last measurement, or as many as are searched exactly besides."""
        newest = len(reader.segment) - _TAIL // reader.segment.exact.dim
        return choose_probes(reader, index, min(newest, len(index)) if index is not None and len(index) else newest)

    def _fill(self, reader: SegmentReader, index: AnnIndex, probes: Probes | None = None) -> None:
        """Add what an index lacks, and measure it. Searches use what was measured before until this is done."""
        probes = probes or self._probes(reader, index)
        add_missing(reader, index, probes, attached=reader.segment.ann is index)
        measured = measure(reader, index, probes, self._galleries.clock())
        with reader.lock.write():
            index.measured = measured
            index.initial_params = measured.search_params or index.initial_params

    def _save(self, held: LoadedGallery, segment: Segment, done: str) -> None:
        approximate = segment.ann
        if approximate is None:
            return
        state = approximate.state()
        if approximate.follows_rows:
            # A graph is large, so it is not saved for every few rows; those it lacks are soon added again.
            saved = self._saved_rows.get(held.row.id, 0)
            if segment.metadata.deleted_count:  # as `_forget` says
                return
            if done != "trained" and len(approximate) < _WORTH_SAVING * saved:
                return
            state["entries"] = segment.metadata.entries[approximate.nodes]
            self._saved_rows[held.row.id] = len(approximate)
        elif done != "trained":
            return
        self._snapshots.save(held.row, state)

    def _forget(self, held: LoadedGallery, segment: Segment) -> None:
        """A saved graph tells which entries were near one that is deleted, and serves no start any more."""
        if segment.metadata.deleted_count and self._saved_rows.pop(held.row.id, None) is not None:
            self._snapshots.drop(held.row)

    def _check(self) -> None:
        if self._stopping.is_set():
            raise _Stopped
