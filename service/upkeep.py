"""Keeps galleries quick: drops dead rows, trains and extends indexes, and saves what that cost; beside everything else.

One thread for all galleries. Searches and changes go on meanwhile: it holds a gallery's lock for moments only, works on
one core, and at a low priority. Until an index is ready, the gallery is searched exactly.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import faiss
import numpy as np

from bundle import PanError
from service.columns import Columns
from service.contents import Contents
from service.database import Database
from service.engine import Vectors
from service.errors import NotFound
from service.galleries import Galleries, Held
from service.gallery import Gallery
from service.index import ApproximateKind, Mask, Rows, choose_kind
from service.index.approximate import Approximate, kind_of
from service.index.gpu import gpu_found
from service.metrics import Metrics
from service.priority import step_back
from service.snapshots import Snapshots
from service.worker import Worker

log = logging.getLogger(__name__)

_EVERY = 1.0  # seconds
_AFTER_FAILURE = 60.0
_CHUNK = 1024  # rows worked on at a time
_FEW_DEAD = 64
_TAIL = 2**22  # numbers that are searched exactly besides, because their rows are not in the index yet: 0.5 ms
_OUTGROWN = 2  # times as many rows as the index was laid out for
_SAMPLE = 65_536
_TRIED = 100  # vectors by which recall is measured
_DEEPEST = 1000
_WORTH_SAVING = 1.05  # times as many rows as were saved


def _share_dead(contents: Contents) -> float:
    """The share of dead rows from which on a copy without them is made."""
    return 0.2 if contents.approximate is None else min(0.2, 1.0 - contents.approximate.least_alive)


def _lower_priority() -> None:
    step_back()
    faiss.omp_set_num_threads(1)


class _Stopped(Exception):
    """The service stops, and unfinished work with it."""


class Upkeep:
    """Looks after every gallery that is searched."""

    def __init__(self, database: Database, galleries: Galleries, folder: Path, metrics: Metrics) -> None:
        self._galleries = galleries
        self._metrics = metrics
        self._snapshots = Snapshots(folder, database)
        self._stopping = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upkeep", initializer=_lower_priority)
        self._worker = Worker("index upkeep", self._tend_all_beside, _EVERY, metrics)
        self.health = self._worker.health
        self._not_before: dict[int, float] = {}  # of galleries that failed
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

    def tend(self, held: Held) -> bool:
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
        log.info("index", extra={"gallery": held.row.name, "done": done, "seconds": round(seconds, 1)})
        return True

    def _do_first(self, held: Held, gallery: Gallery, contents: Contents) -> str | None:
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
        if len(gallery) > _OUTGROWN * index.planned:
            return self._train(gallery, kind)
        if (len(contents) - len(index)) * held.row.dim > _TAIL:
            self._fill(gallery, contents, index)
            return "extended"
        return self._copy_to_gpu(gallery, contents)

    def _copy_to_gpu(self, gallery: Gallery, contents: Contents) -> str | None:
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
        try:
            for one in held:
                if time.monotonic() >= self._not_before[one.row.id]:
                    self._not_before[one.row.id] = 0.0 if self._tended(one) else time.monotonic() + _AFTER_FAILURE
            self._sweep()
        except _Stopped:
            pass
        return not any(self._not_before.values())

    def _tended(self, held: Held) -> bool:
        """Whether all is well with a gallery."""
        try:
            while self.tend(held):
                self._check()
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

    def _copied(self, gallery: Gallery, columns: Columns, rows: Rows) -> Contents:
        old, new = gallery.contents, Contents(gallery.contents.vectors.dim)
        new.columns = columns
        for vectors in self._read(gallery, old, rows):
            new.vectors.add(vectors)
        if old.approximate is not None:
            approximate = old.approximate.empty()
            self._fill(gallery, new, approximate)
            new.approximate = approximate
        return new

    def _train(self, gallery: Gallery, kind: ApproximateKind) -> str:
        contents = gallery.contents
        rng = np.random.default_rng(0)
        with gallery.lock.read():
            alive = contents.columns.alive.copy()
        rows = np.flatnonzero(alive)
        sample = np.sort(rng.choice(rows, min(len(rows), _SAMPLE), replace=False))
        vectors = np.concatenate(list(self._read(gallery, contents, sample)))
        approximate = Approximate.train(kind, vectors, len(rows))
        self._fill(gallery, contents, approximate)
        self._tune(gallery, contents, approximate, rng.choice(rows, _TRIED, replace=False))
        self._attach(gallery, contents, approximate, alive)
        return "trained"

    def _tune(self, gallery: Gallery, contents: Contents, approximate: Approximate, own: Rows) -> None:
        covered = len(approximate)
        with gallery.lock.read():
            queries = contents.vectors.vectors(own)
            alive = contents.columns.alive[:covered].copy()
        depth = min(_DEEPEST, int(np.count_nonzero(alive)) // 4)
        truth = []
        for query in queries:  # one by one, so that no change waits for long
            self._check()
            with gallery.lock.read():
                allowed = np.zeros(len(contents), np.bool_)
                allowed[:covered] = alive
                truth.append(contents.vectors.search(query[None], depth + 1, allowed)[1])

        def score(queries: Vectors, rows: Rows) -> Vectors:
            self._check()
            with gallery.lock.read():
                return contents.vectors.scores(queries, rows)

        approximate.tune(queries, own, np.concatenate(truth), score)

    def _restore(self, held: Held, gallery: Gallery, kind: ApproximateKind) -> bool:
        state = self._snapshots.load(held.row)
        if state is None or kind_of(state) != kind:
            return False
        contents = gallery.contents
        with gallery.lock.read():
            alive, entries = contents.columns.alive.copy(), contents.columns.entries.copy()
        of_rows = state.pop("entries", entries[:0])
        if not np.array_equal(of_rows, entries[: len(of_rows)]):
            return False  # of some the rows are gone
        approximate = Approximate.restored(state, list(self._read(gallery, contents, np.arange(len(of_rows)))))
        self._fill(gallery, contents, approximate)
        self._attach(gallery, contents, approximate, alive)
        if approximate.follows_rows:
            self._saved_rows[held.row.id] = len(of_rows)
        return True

    def _attach(self, gallery: Gallery, contents: Contents, approximate: Approximate, alive: Mask) -> None:
        """Search by an index from now on; `alive` says which rows were when it began to be filled."""
        with gallery.lock.write():
            if gallery.contents is contents:
                alive_now = contents.columns.alive
                newer = np.ones(len(alive_now) - len(alive), np.bool_)
                approximate.wipe(np.flatnonzero(np.concatenate([alive, newer]) & ~alive_now))
                contents.approximate = approximate

    def _fill(self, gallery: Gallery, contents: Contents, approximate: Approximate) -> None:
        """Add the rows that an index has not; while others search it, each part under the lock."""
        attached = contents.approximate is approximate
        while (start := len(approximate)) < len(contents):
            rows = np.arange(start, min(start + approximate.quickly_added, len(contents)))
            (vectors,) = self._read(gallery, contents, rows)
            append = approximate.prepare(vectors)
            if not attached:
                append()
                continue
            with gallery.lock.write():
                append()
                approximate.wipe(rows[~contents.columns.alive[rows]])

    def _read(self, gallery: Gallery, contents: Contents, rows: Rows) -> Iterator[Vectors]:
        for start in range(0, len(rows), _CHUNK):
            self._check()
            with gallery.lock.read():
                vectors = contents.vectors.vectors(rows[start : start + _CHUNK])
            yield vectors

    def _save(self, held: Held, contents: Contents, done: str) -> None:
        approximate = contents.approximate
        if approximate is None:
            return
        state = approximate.state()
        if approximate.follows_rows:
            # A graph is large, so it is not saved for every few rows; those it lacks are soon added again.
            saved = self._saved_rows.get(held.row.id, 0)
            if done == "extended" and len(approximate) < _WORTH_SAVING * saved:
                return
            state["entries"] = contents.columns.entries[: len(approximate)]
            self._saved_rows[held.row.id] = len(approximate)
        elif done != "trained":
            return
        self._snapshots.save(held.row, state)

    def _forget(self, held: Held, contents: Contents) -> None:
        """A saved graph tells which entries were near one that is deleted, and serves no start any more."""
        if contents.columns.dead and self._saved_rows.pop(held.row.id, None) is not None:
            self._snapshots.drop(held.row)

    def _check(self) -> None:
        if self._stopping.is_set():
            raise _Stopped
