"""Use cases on the persons of a gallery: list, erase."""

import sqlite3

from service.core.clock import now
from service.core.errors import NotFound
from service.galleries.catalog import GalleryCatalog
from service.galleries.commands import ErasePerson, ListPersons
from service.galleries.results import Erasure, PersonPage
from service.storage import entries as records
from service.storage.audit import insert_audit
from service.storage.database import Database


class Persons:
    """Persons are the distinct person ids of the entries of a gallery."""

    def __init__(self, database: Database, catalog: GalleryCatalog) -> None:
        self._database = database
        self._catalog = catalog

    async def page(self, command: ListPersons) -> PersonPage:
        """A page of persons, sorted by id. Raises NotFound for the gallery."""
        gallery_id = self._catalog.find(command.gallery).row.id
        rows = await self._database.read(
            lambda db: records.select_persons(db, gallery_id, after=command.after, limit=command.limit + 1)
        )
        page = rows[: command.limit]
        return PersonPage(tuple(page), page[-1].person_id if len(rows) > len(page) else None)

    async def erase(self, command: ErasePerson) -> Erasure:
        """Erase every entry of a person. Raises NotFound if there is none."""
        loaded = self._catalog.find(command.gallery)
        row = loaded.row

        def apply(db: sqlite3.Connection) -> list[int]:
            ids = records.delete_person(db, row.id, command.person_id)
            if not ids:
                raise NotFound(f"gallery {row.name} has no person with this id; nothing was erased")
            insert_audit(db, command.caller, "erase-person", row.name, len(ids))
            return ids

        erased = await self._database.write(
            apply, lambda ids: self._catalog.apply_committed(loaded, lambda memory: memory.remove(ids))
        )
        return Erasure(len(erased), await self._database.truncate_wal(), now())
