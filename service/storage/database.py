"""One SQLite file: one thread commits the writes that have gathered in one fsync; other threads read.

Memory follows the commits on further threads, for each gallery in their order, so a commit never waits for a search.
WAL with synchronous=FULL: when a write's future is done, it survives a power loss. `secure_delete` overwrites what is
deleted, because erasing a person must leave no vector on a free page.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from bundle import PanError
from service.core.errors import StartupError, StorageFailed, StorageFull
from service.core.serial_executor import SerialExecutor
from service.observability import tracing
from service.observability.metrics import Metrics
from service.storage.data_dir import make_private
from service.storage.integrity import lenient_text
from service.storage.migrations import MIGRATIONS, SCHEMA_VERSION

T = TypeVar("T")

log = logging.getLogger(__name__)

_READERS = 4
_FOLLOWERS = 64  # threads, made when needed: one for each gallery that waits for a search while others do
_MAX_GROUP = 64
_PAGE = 2**14  # bytes; in the usual 4,096 there is room for one vector of 512 numbers, and half of a page lies idle
_CHECKPOINT_PATIENCE = 2000  # milliseconds; writes wait meanwhile, so it is less than theirs


@dataclass(slots=True)
class _Write(Generic[T]):
    apply: Callable[[sqlite3.Connection], T]
    committed: "Callable[[T], Future[None] | None] | None"
    future: "Future[T]" = field(default_factory=Future)
    result: Any = None
    error: Exception | None = None


class Database:
    """Writes are queued to one thread, reads run on a few; both answer with futures."""

    def __init__(self, path: Path, metrics: Metrics) -> None:
        """Open or create the file. Raises StartupError for a file of another schema version or none of ours."""
        self._path = path
        self._metrics = metrics
        self._writer = _open(path)
        self._writes: queue.SimpleQueue[_Write[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_loop, name="writer")
        self._thread.start()
        self._own = _open_reader(path)  # of the event loop
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="reader")
        self._followers = ThreadPoolExecutor(_FOLLOWERS, thread_name_prefix="follower")
        self.last_write_failed = False

    def submit_write(
        self, apply: Callable[[sqlite3.Connection], T], committed: "Callable[[T], Future[None] | None] | None" = None
    ) -> "Future[T]":
        """Queue a write. `apply` runs inside the transaction and is undone alone if it raises.

        After the commit is on disk, `committed` is called on the writer's thread, in the order of the commits. It must
        not wait: work on memory goes to a `follower`, whose future it returns, and the write is done when that is.
        A future cancelled before its turn is dropped.
        """
        job = _Write(apply, committed)
        self._writes.put(job)
        return job.future

    def submit_read(self, query: Callable[[sqlite3.Connection], T]) -> "Future[T]":
        """Run a query on a reader thread, seeing everything committed so far."""
        return self._readers.submit(lambda: _translated(lambda: query(self._reader())))

    def follower(self) -> SerialExecutor:
        """Runs what follows the commits of one gallery, in their order, on threads that may wait; `close` ends it."""
        return SerialExecutor(self._followers)

    def read_here(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query on the calling thread, which is the event loop's. For what takes microseconds and is asked with
        every request: the way to another thread and back costs ten times as much, and more the busier the service is.
        """
        return _translated(lambda: query(self._own))

    async def write(
        self, apply: Callable[[sqlite3.Connection], T], committed: "Callable[[T], Future[None] | None] | None" = None
    ) -> T:
        """As `submit_write`; returns when the commit is on disk and memory has followed."""
        with tracing.part("commit"):
            return await asyncio.wrap_future(self.submit_write(apply, committed))

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """As `submit_read`."""
        return await asyncio.wrap_future(self.submit_read(query))

    async def truncate_wal(self) -> bool:
        """Move the write-ahead log into the file, where what was deleted is overwritten, and cut it off; False where
        another reader or the disk kept that from happening. Any later call catches up.
        """

        def checkpoint(db: sqlite3.Connection) -> bool:
            busy: int = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            return not busy

        try:
            return await self.read(checkpoint)
        except PanError as error:
            log.error("the write-ahead log was not emptied: %s", error)
            return False

    def close(self) -> None:
        """Finish the queued writes, then close every connection."""
        self._writes.put(None)
        self._thread.join()
        self._followers.shutdown()
        self._readers.shutdown()
        for connection in (*self._connections, self._own, self._writer):
            connection.close()

    def _reader(self) -> sqlite3.Connection:
        """The connection of the calling thread. Opened here and not with the thread: a file that cannot be opened fails
        one read, and the next one tries again.
        """
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _open_reader(self._path)
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
            log.error("a group of %d writes was not committed: %s", len(jobs), error)
            self.last_write_failed = True
            for job in jobs:
                job.error = _storage_error(error)
        self._metrics.commit_seconds.observe(time.monotonic() - started)
        self._metrics.commit_writes.observe(len(jobs))
        for job in jobs:
            _follow(job)

    def _transact(self, jobs: list[_Write[Any]]) -> None:
        writer = self._writer
        try:
            writer.execute("BEGIN IMMEDIATE")
            for job in jobs:
                writer.execute("SAVEPOINT job")
                try:
                    job.result = job.apply(writer)
                except sqlite3.OperationalError:
                    raise  # the disk, not the request: nothing of the group can be kept
                except Exception as error:
                    job.error = error
                    writer.execute("ROLLBACK TO job")
                writer.execute("RELEASE job")
            writer.execute("COMMIT")
        except Exception:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise


def _follow(job: _Write[Any]) -> None:
    """Have memory follow a commit, and then tell the caller."""
    if job.error is not None:
        job.future.set_exception(job.error)
        return
    try:
        following = job.committed(job.result) if job.committed is not None else None
    except Exception as error:
        _report_unfollowed(job, error)
        return
    if following is None:
        job.future.set_result(job.result)
        return

    def followed(future: "Future[None]") -> None:
        if (error := future.exception()) is None:
            job.future.set_result(job.result)
        else:
            _report_unfollowed(job, error)

    following.add_done_callback(followed)


def _report_unfollowed(job: _Write[Any], error: BaseException) -> None:
    log.critical("memory is behind the database after a commit", exc_info=error)
    job.future.set_exception(error)


@contextmanager
def read_transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Within it all queries of a reader see what one moment left."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.execute("COMMIT")


@contextmanager
def connect_for_command(path: Path, *, make: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection for a command that may run beside a service. With `make` a missing database is made.

    The schema is never upgraded: a service of an earlier release may run. Raises as `Database`, and a storage error.
    """
    if not make and not path.is_file():
        raise StartupError(f"{path.parent} holds no {path.name}; give the --data of the service")
    connection = _open(path, upgrade=False)
    try:
        yield connection
    except sqlite3.DatabaseError as error:
        raise _storage_error(error) from error
    finally:
        connection.close()


def _open(path: Path, *, upgrade: bool = True) -> sqlite3.Connection:
    try:
        make_private(path)  # SQLite makes its log and its shared memory with the mode of the file
        connection = _connect(path)
        try:
            _prepare(connection, path, upgrade)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.DatabaseError, OSError) as error:
        raise StartupError(
            f"{path} cannot be opened as a gallery database ({error}); see who owns it, or restore it from a backup"
        ) from error
    return connection


def _open_reader(path: Path) -> sqlite3.Connection:
    connection = _connect(path)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_PATIENCE}")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
    connection.row_factory = sqlite3.Row
    connection.text_factory = lenient_text
    return connection


def _prepare(writer: sqlite3.Connection, path: Path, upgrade: bool) -> None:
    version = writer.execute("PRAGMA user_version").fetchone()[0]
    tables = writer.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if version > SCHEMA_VERSION or (version == 0 and tables):
        raise StartupError(
            f"{path} has schema version {version}, this release reads 1 to {SCHEMA_VERSION}; "
            "start the release that wrote it, or give another --data"
        )
    if 0 < version < SCHEMA_VERSION and not upgrade:
        raise StartupError(
            f"{path} is of an earlier release (schema version {version}, this release has {SCHEMA_VERSION}) and a "
            "command does not upgrade it: start the service of this release once, or use the earlier pan-serve"
        )
    writer.execute(f"PRAGMA page_size = {_PAGE}")  # of a new file; another keeps its own
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("PRAGMA synchronous = FULL")
    writer.execute("PRAGMA foreign_keys = ON")
    writer.execute("PRAGMA secure_delete = ON")
    if version < SCHEMA_VERSION:
        steps = ";".join(MIGRATIONS[version:])
        writer.executescript(f"BEGIN; {steps}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


def _translated(call: Callable[[], T]) -> T:
    try:
        return call()
    except sqlite3.DatabaseError as error:
        raise _storage_error(error) from error


def _storage_error(error: Exception) -> PanError | Exception:
    if not isinstance(error, sqlite3.DatabaseError):
        return error
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StorageFull("the disk is full, nothing was written; free some space and send the request again")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StorageFailed(
            f"the database is damaged ({error}), nothing was written; stop the service and restore it from a backup, "
            "or save what can still be read with `sqlite3 pan.sqlite3 .recover`"
        )
    return StorageFailed(f"the database cannot be used ({error}), nothing was written; try again or look at the disk")
