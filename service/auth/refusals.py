"""Calls that were refused for want of a key or a scope: counted, and written to the audit once a minute."""

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

_EVERY = 60.0  # seconds
_LINES = 20  # of the audit a minute, and a few more: callers from many addresses must not fill the disk
_OTHERS = "(others)"  # no key and no address has such a name


class Refusals:
    """Lives on one event loop."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._counts: Counter[tuple[str, str]] = Counter()
        self._worker = Worker("refusals", self._write, _EVERY, metrics)
        self.health = self._worker.health

    def count(self, address: str, key: str | None, reason: str) -> None:
        """Count a refused call, by the name of the key where it came with a valid one.

        Past so many lines in a minute, callers without a key are counted as one.
        """
        line = (key or address, reason)
        if key is None and line not in self._counts and len(self._counts) >= _LINES:
            line = (_OTHERS, reason)
        self._counts[line] += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write each minute, and at the end."""
        try:
            async with self._worker.running():
                yield
        finally:
            try:
                await self._write()
            except Exception:
                log.exception("refused calls of the last minute are not in the audit")

    async def _write(self) -> bool:
        if not self._counts:
            return True
        counts, self._counts = self._counts, Counter()

        def apply(db: sqlite3.Connection) -> None:
            for (who, reason), count in counts.items():
                insert_audit(db, who, "refused", "", count, detail=reason)

        try:
            # A stop of the service cancels this round; what it has begun to write is written all the same.
            await asyncio.shield(asyncio.ensure_future(self._database.write(apply)))
        except Exception:
            self._counts.update(counts)
            raise
        return True
