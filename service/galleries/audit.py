"""The audit log: the calls that read personal data or change it, by caller. Append, list."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.galleries.commands import ListAudit
from service.galleries.results import AuditPage
from service.storage.audit import insert_audit, select_audit
from service.storage.database import Database


class Audit:
    """Appends to the audit log, and lists its records."""

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

    async def page(self, command: ListAudit) -> AuditPage:
        """A page of records, newest first."""
        rows = await self._database.read(
            lambda db: select_audit(
                db,
                before=command.before,
                limit=command.limit + 1,
                since=command.since,
                until=command.until,
                caller=command.caller,
                gallery=command.gallery,
                action=command.action,
            )
        )
        page = rows[: command.limit]
        return AuditPage(tuple(page), page[-1].id if len(rows) > len(page) else None)
