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
from service.index.ann import COMPONENTS, Approximate, kind_of, principal_components
from service.index.choice import ApproximateKind, choose_kind
from service.index.exact import stay_on_one_core
from service.index.gallery_index import GalleryIndex
from service.index.gpu import gpu_found
from service.index.metadata import MetadataTable
from service.index.recall import Probes, Reader, choose_probes, fill, measure
from service.index.segment import Segment
from service.observability.metrics import Metrics
from service.observability.worker import Worker
from service.storage.database import Database
from service.workers.index_snapshots import Snapshots

log = logging.getLogger(__name__)

_EVERY = 1.0  # seconds
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


def _share_dead(contents: Segment) -> float:
    """The share of dead rows from which on a copy without them is made."""
    return 0.2 if contents.approximate is None else min(0.2, 1.0 - contents.approximate.min_live_fraction)


def _lower_priority() -> None:
    lower_priority()
    stay_on_one_core()


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
        self._worker = Worker("index upkeep", self._tend_all_beside, _EVERY, metrics)
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
        self._forget(held, gallery.contents)
        done = self._do_first(held, gallery, gallery.contents)
        if done is None:
            return False
        self._save(held, gallery.contents, done)
        seconds = time.monotonic() - started
        self._metrics.upkeep_seconds.labels(done).observe(seconds)
        told = {"gallery": held.row.name, "done": done, "seconds": round(seconds, 1)}
        if (index := gallery.contents.approximate) is not None and (measured := index.measured) is not None:
            told |= {"recall": measured.recall, "recall_recent": measured.recall_recent}
            if not index.trusted:
                log.warning("the recall of an index is below its target: searches are exact", extra=told)
        log.info("index", extra=told)
        return True

    def _do_first(self, held: LoadedGallery, gallery: GalleryIndex, contents: Segment) -> str | None:
        """What was done, if there was anything to do."""
        kind, index = choose_kind(held.row.index_kind, len(gallery), held.row.dim), contents.approximate
        if contents.columns.dead > max(_FEW_DEAD, _share_dead(contents) * len(contents)):
            gallery.compact(lambda columns, rows: self._copied(gallery, columns, rows))
            return "compacted"
        if kind is None:
            if index is None:
                return self._copy_to_gpu(gallery, contents)
            with gallery.lock.write():
                contents.approximate = None
            return "dropped"
        if index is None or index.kind != kind:
            return "restored" if self._restore(held, gallery, kind) else self._train(gallery, kind)
        if self._needs_training(contents, index):
            return self._train(gallery, kind)
        if self._needs_measuring(contents, index):
            return self._extend(gallery, contents, index)
        return self._copy_to_gpu(gallery, contents)

    def _needs_training(self, contents: Segment, index: Approximate) -> bool:
        """Whether so much came or went since training that the index may have learnt another gallery."""
        alive, end = contents.columns.alive, np.searchsorted(contents.columns.entries, index.trained_until, "right")
        left = int(np.count_nonzero(alive[:end]))  # of what it was trained on
        turnover = 1.0 - left / max(1, index.trained_rows, int(np.count_nonzero(alive)))
        return turnover > (_TURNOVER if index.trusted else index.retrain_after)

    def _needs_measuring(self, contents: Segment, index: Approximate) -> bool:
        if index.measured is None or (len(contents) - len(index)) * contents.vectors.dim > _TAIL:
            return True
        return contents.columns.dead - index.measured.dead > max(_FEW_DEAD, _DIED * len(contents))

    def _copy_to_gpu(self, gallery: GalleryIndex, contents: Segment) -> str | None:
        if not gpu_found() or len(contents) == 0:
            return None
        with gallery.lock.read():
            if contents.approximate is None:
                made = contents.vectors.copy_to_gpu(_TAIL // contents.vectors.dim)
            else:
                made = contents.approximate.copy_to_gpu()
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
        old, new = gallery.contents, Segment(gallery.contents.vectors.dim)
        new.columns = columns
        for vectors in Reader(old, gallery.lock, self._check).vectors(rows):
            new.vectors.add(vectors)
        if old.approximate is not None:
            approximate = old.approximate.empty()
            self._fill(Reader(new, gallery.lock, self._check), approximate)
            new.approximate = approximate
        return new

    def _train(self, gallery: GalleryIndex, kind: ApproximateKind) -> str:
        contents, before = gallery.contents, gallery.contents.approximate
        reader = Reader(contents, gallery.lock, self._check)
        probes = self._probes(reader, None)
        alive = np.flatnonzero(reader.alive(probes.covered))
        rows = np.setdiff1d(alive, probes.rows)
        sample = np.sort(np.random.default_rng(0).choice(rows, min(len(rows), _SAMPLE), replace=False))
        vectors = np.concatenate(list(reader.vectors(sample)))
        until = int(contents.columns.entries[probes.covered - 1])
        components = principal_components(vectors, max(COMPONENTS))
        for count in COMPONENTS:
            projection = np.ascontiguousarray(components[:, :count])
            index = Approximate.train(kind, vectors, projection, len(alive), until)
            self._fill(reader, index, probes)
            if index.trusted or count >= contents.vectors.dim:
                break
        if not index.trusted and before is not None:
            index.retrain_after = min(_TURNOVER, 2 * before.retrain_after)
        self._install(gallery, contents, index)
        return "trained"

    def _extend(self, gallery: GalleryIndex, contents: Segment, index: Approximate) -> str:
        """Add what an index lacks to it, and measure it; it answers for that from then on."""
        reader = Reader(contents, gallery.lock, self._check)
        before = len(index)
        self._fill(reader, index)
        return "extended" if len(index) > before else "measured"

    def _restore(self, held: LoadedGallery, gallery: GalleryIndex, kind: ApproximateKind) -> bool:
        state = self._snapshots.load(held.row)
        if state is None or kind_of(state) != kind:
            return False
        contents = gallery.contents
        reader = Reader(contents, gallery.lock, self._check)
        with gallery.lock.read():
            alive, entries = contents.columns.alive.copy(), contents.columns.entries.copy()
        of_nodes = state.pop("entries", entries[:0])
        rows = np.searchsorted(entries, of_nodes)
        if not np.isin(of_nodes, entries[alive]).all():
            return False  # some of its nodes are gone
        approximate = Approximate.restored(state, rows, list(reader.vectors(rows)))
        self._fill(reader, approximate)
        self._install(gallery, contents, approximate)
        if approximate.follows_rows:
            self._saved_rows[held.row.id] = len(of_nodes)
        return True

    def _install(self, gallery: GalleryIndex, contents: Segment, index: Approximate) -> None:
        """Search by an index from now on, without the rows that died while it was filled."""
        with gallery.lock.write():
            if gallery.contents is contents:
                index.wipe(np.flatnonzero(index.holds(len(contents)) & ~contents.columns.alive))
                contents.approximate = index

    def _probes(self, reader: Reader, index: Approximate | None) -> Probes:
        """The newest are those that came since the last measurement, or as many as are searched exactly besides."""
        newest = len(reader.contents) - _TAIL // reader.contents.vectors.dim
        return choose_probes(reader, index, min(newest, len(index)) if index is not None and len(index) else newest)

    def _fill(self, reader: Reader, index: Approximate, probes: Probes | None = None) -> None:
        """Add what an index lacks, and measure it. Searches use what was measured before until this is done."""
        probes = probes or self._probes(reader, index)
        fill(reader, index, probes, attached=reader.contents.approximate is index)
        measured = measure(reader, index, probes, self._galleries.clock())
        with reader.lock.write():
            index.measured = measured
            index.first_efforts = measured.efforts or index.first_efforts

    def _save(self, held: LoadedGallery, contents: Segment, done: str) -> None:
        approximate = contents.approximate
        if approximate is None:
            return
        state = approximate.state()
        if approximate.follows_rows:
            # A graph is large, so it is not saved for every few rows; those it lacks are soon added again.
            saved = self._saved_rows.get(held.row.id, 0)
            if contents.columns.dead:  # as `_forget` says
                return
            if done != "trained" and len(approximate) < _WORTH_SAVING * saved:
                return
            state["entries"] = contents.columns.entries[approximate.nodes]
            self._saved_rows[held.row.id] = len(approximate)
        elif done != "trained":
            return
        self._snapshots.save(held.row, state)

    def _forget(self, held: LoadedGallery, contents: Segment) -> None:
        """A saved graph tells which entries were near one that is deleted, and serves no start any more."""
        if contents.columns.dead and self._saved_rows.pop(held.row.id, None) is not None:
            self._snapshots.drop(held.row)

    def _check(self) -> None:
        if self._stopping.is_set():
            raise _Stopped
