"""One SQLite file with a single writer thread and several reader threads.

The writer commits all queued writes in one transaction with one fsync (group commit). WAL mode with synchronous=FULL:
when the future of a write is done, the write survives a power loss. `secure_delete` overwrites deleted rows, so an
erased vector does not remain on a free page.

After a commit, the in-memory galleries are updated on further threads, in the order of the commits for each gallery.
A commit therefore never waits for a running search.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from bundle import PanError
from service.core.serial_executor import SerialExecutor
from service.observability import tracing
from service.observability.metrics import Metrics
from service.storage.connection import open_reader, open_writer, storage_error, with_storage_errors

T = TypeVar("T")

log = logging.getLogger(__name__)

_READERS = 4  # threads
_POST_COMMIT_THREADS = 64  # created on demand: each may block on the write lock of another gallery
_MAX_GROUP = 64  # writes per transaction


@dataclass(slots=True)
class _Write(Generic[T]):
    apply: Callable[[sqlite3.Connection], T]
    on_commit: "Callable[[T], Future[None] | None] | None"
    future: "Future[T]" = field(default_factory=Future)
    result: Any = None
    error: Exception | None = None


class Database:
    """Queues writes to one thread and runs reads on a few. Both return futures."""

    def __init__(self, path: Path, metrics: Metrics) -> None:
        """Open the database, and create it if it does not exist. Raises StartupError as `open_writer` does."""
        self._path = path
        self._metrics = metrics
        self._writer = open_writer(path)
        self._writes: queue.SimpleQueue[_Write[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_loop, name="writer")
        self._thread.start()
        self._loop_connection = open_reader(path)  # for `read_inline`, which the event loop calls
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="reader")
        self._post_commit = ThreadPoolExecutor(_POST_COMMIT_THREADS, thread_name_prefix="post-commit")
        self.last_write_failed = False

    def submit_write(
        self, apply: Callable[[sqlite3.Connection], T], on_commit: "Callable[[T], Future[None] | None] | None" = None
    ) -> "Future[T]":
        """Queue a write. `apply` runs inside the transaction; if it raises, only its own changes are rolled back.

        After the commit, the writer thread calls `on_commit` with the result, in the order of the commits. It must not
        block: it submits slow work to a `post_commit_executor` and returns that future, and the future of the write
        then waits for it. A future that is cancelled before its write starts drops the write.
        """
        job = _Write(apply, on_commit)
        self._writes.put(job)
        return job.future

    def submit_read(self, query: Callable[[sqlite3.Connection], T]) -> "Future[T]":
        """Run a query on a reader thread. It sees every write that is committed by then."""
        return self._readers.submit(lambda: with_storage_errors(lambda: query(self._reader())))

    def post_commit_executor(self) -> SerialExecutor:
        """An executor that updates memory after commits, in their order, on threads that may block.

        Each gallery has one. `close` waits for its calls.
        """
        return SerialExecutor(self._post_commit)

    def read_inline(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query on the calling thread, which must be that of the event loop.

        For queries of a few microseconds on every request, where a switch to a reader thread would cost ten times as
        much, and more under load.
        """
        return with_storage_errors(lambda: query(self._loop_connection))

    async def write(
        self, apply: Callable[[sqlite3.Connection], T], on_commit: "Callable[[T], Future[None] | None] | None" = None
    ) -> T:
        """Like `submit_write`. Returns after the commit is on disk and `on_commit` is done."""
        with tracing.stage("commit"):
            return await asyncio.wrap_future(self.submit_write(apply, on_commit))

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Like `submit_read`."""
        return await asyncio.wrap_future(self.submit_read(query))

    async def truncate_wal(self) -> bool:
        """Checkpoint the write-ahead log and truncate it, so that no deleted row remains in it.

        Returns False if another reader or the disk prevents it; a later call can succeed.
        """

        def checkpoint(db: sqlite3.Connection) -> bool:
            busy: int = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            return not busy

        try:
            return await self.read(checkpoint)
        except PanError as error:
            log.error("the write-ahead log was not truncated: %s", error)
            return False

    def close(self) -> None:
        """Finish the queued writes, then close every connection."""
        self._writes.put(None)
        self._thread.join()
        self._post_commit.shutdown()
        self._readers.shutdown()
        for connection in (*self._connections, self._loop_connection, self._writer):
            connection.close()

    def _reader(self) -> sqlite3.Connection:
        """The connection of the calling thread.

        It is opened by the first read and not with the thread, so that a failed open fails one read only.
        """
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = open_reader(self._path)
            self._connections.append(connection)
        return connection

    def _write_loop(self) -> None:
        closing = False
        while not closing:
            group = [self._writes.get()]
            while len(group) < _MAX_GROUP and group[-1] is not None:
                try:
                    group.append(self._writes.get_nowait())
                except queue.Empty:
                    break
            closing = group[-1] is None
            jobs = [job for job in group if job is not None and job.future.set_running_or_notify_cancel()]
            if jobs:
                self._commit(jobs)

    def _commit(self, jobs: list[_Write[Any]]) -> None:
        started = time.monotonic()
        try:
            self._transact(jobs)
            self.last_write_failed = False
        except Exception as error:
            log.error("a transaction of %d writes was not committed: %s", len(jobs), error)
            self.last_write_failed = True
            for job in jobs:
                job.error = storage_error(error)
        self._metrics.commit_seconds.observe(time.monotonic() - started)
        self._metrics.commit_writes.observe(len(jobs))
        for job in jobs:
            _finish(job)

    def _transact(self, jobs: list[_Write[Any]]) -> None:
        writer = self._writer
        try:
            writer.execute("BEGIN IMMEDIATE")
            for job in jobs:
                writer.execute("SAVEPOINT job")
                try:
                    job.result = job.apply(writer)
                except sqlite3.OperationalError:
                    raise  # an error of the disk, not of one write: the whole transaction fails
                except Exception as error:
                    job.error = error
                    writer.execute("ROLLBACK TO job")
                writer.execute("RELEASE job")
            writer.execute("COMMIT")
        except Exception:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise


def _finish(job: _Write[Any]) -> None:
    """Call `on_commit`, and complete the future of the write when that is done."""
    if job.error is not None:
        job.future.set_exception(job.error)
        return
    try:
        pending = job.on_commit(job.result) if job.on_commit is not None else None
    except Exception as error:
        _fail_after_commit(job, error)
        return
    if pending is None:
        job.future.set_result(job.result)
        return

    def complete(future: "Future[None]") -> None:
        if (error := future.exception()) is None:
            job.future.set_result(job.result)
        else:
            _fail_after_commit(job, error)

    pending.add_done_callback(complete)


def _fail_after_commit(job: _Write[Any], error: BaseException) -> None:
    log.critical("a write is committed, but the gallery in memory was not updated", exc_info=error)
    job.future.set_exception(error)
