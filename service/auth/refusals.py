"""Audit of calls that were refused for a missing key or scope. Counts are written once a minute."""

import asyncio
import logging
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.observability.metrics import Metrics
from service.observability.worker import Worker
from service.storage.audit import insert_audit
from service.storage.database import Database

log = logging.getLogger(__name__)

_INTERVAL = 60.0  # seconds
_MAX_LINES = 20  # approximately, per minute: callers from many addresses must not fill the disk
_OTHERS = "(others)"  # in the audit; neither a key nor an address has this name


class RefusalLog:
    """Counts refused calls by caller and reason. Not thread-safe: for use on one event loop."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._counts: Counter[tuple[str, str]] = Counter()
        self._worker = Worker("refusals", self._write, _INTERVAL, metrics)
        self.health = self._worker.health

    def count(self, address: str, key: str | None, reason: str) -> None:
        """Count a refused call under the name of its key, or under its address if it has no valid key.

        Above the limit of lines per minute, callers without a key are counted together.
        """
        line = (key or address, reason)
        if key is None and line not in self._counts and len(self._counts) >= _MAX_LINES:
            line = (_OTHERS, reason)
        self._counts[line] += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write the counts every minute inside the context, and at its end."""
        try:
            async with self._worker.running():
                yield
        finally:
            try:
                await self._write()
            except Exception:
                log.exception("the refused calls of the last minute were not written to the audit")

    async def _write(self) -> bool:
        if not self._counts:
            return True
        counts, self._counts = self._counts, Counter()

        def apply(db: sqlite3.Connection) -> None:
            for (who, reason), count in counts.items():
                insert_audit(db, who, "refused", "", count, detail=reason)

        try:
            # Shutdown cancels this round, but must not cancel a write in progress.
            await asyncio.shield(asyncio.ensure_future(self._database.write(apply)))
        except Exception:
            self._counts.update(counts)
            raise
        return True
