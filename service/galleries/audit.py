"""The audit log: the calls that read personal data or change it, by caller."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.storage.audit import insert_audit
from service.storage.database import Database


class Audit:
    """Appends to the audit log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, caller: str, action: str, gallery: str, count: int) -> None:
        """Append a line. Returns when it is on disk. `count` is the number of crops. Raises a storage error."""
        await self._database.write(lambda db: insert_audit(db, caller, action, gallery, count))

    @asynccontextmanager
    async def record_concurrently(self, caller: str, action: str, gallery: str, count: int) -> AsyncIterator[None]:
        """Append a line while the context runs. The line is on disk at the end, also if the context raises.

        Raises a storage error: a response must not be sent without its line.
        """
        recorded = asyncio.create_task(self.record(caller, action, gallery, count))
        try:
            yield
        finally:
            await recorded
