"""Use cases on single entries: list, get, image, update, delete."""

import sqlite3
from concurrent.futures import Future
from dataclasses import replace

from service.core.errors import NoImage, NotFound
from service.core.models import EntryRow
from service.galleries.audit import Audit
from service.galleries.catalog import GalleryCatalog
from service.galleries.commands import DeleteEntry, GetEntry, GetImage, ListEntries, UpdateEntry
from service.galleries.results import Entry, EntryPage
from service.storage import crops as crop_records
from service.storage import entries as records
from service.storage.audit import insert_audit
from service.storage.database import Database
from service.storage.entry_integrity import are_attributes


class Entries:
    """Every change is in the audit log, and on disk when its method returns."""

    def __init__(self, database: Database, catalog: GalleryCatalog, audit: Audit) -> None:
        self._database = database
        self._catalog = catalog
        self._audit = audit

    async def page(self, command: ListEntries) -> EntryPage:
        """A page of entries in the order of enrolment. Raises NotFound for the gallery."""
        gallery_id = self._catalog.find(command.gallery).row.id

        def query(db: sqlite3.Connection) -> tuple[list[EntryRow], set[int]]:
            rows = records.select_entries(
                db,
                gallery_id,
                after=command.after,
                limit=command.limit + 1,
                person_id=command.person_id,
                camera_id=command.camera_id,
            )
            return rows, crop_records.select_ids_with_crop(db, [row.id for row in rows])

        rows, with_image = await self._database.read(query)
        page = rows[: command.limit]
        return EntryPage(
            tuple(_entry(row, row.id in with_image) for row in page), page[-1].id if len(rows) > len(page) else None
        )

    async def get(self, command: GetEntry) -> Entry:
        """One entry. Raises NotFound."""
        gallery_id = self._catalog.find(command.gallery).row.id

        def query(db: sqlite3.Connection) -> Entry:
            found = records.select_entries_by_id(db, gallery_id, [command.entry_id])
            if command.entry_id not in found:
                raise no_entry(command.gallery, command.entry_id)
            return _entry(found[command.entry_id], bool(crop_records.select_ids_with_crop(db, [command.entry_id])))

        return self._database.read_inline(query)

    async def image(self, command: GetImage) -> bytes:
        """The kept image of an entry, as JPEG. The call is in the audit log. Raises NotFound or NoImage."""
        await self.get(GetEntry(command.gallery, command.entry_id))
        image = await self._database.read(lambda db: crop_records.select_crop(db, command.entry_id))
        if image is None:
            raise NoImage(
                f"no image of entry {command.entry_id} is kept: gallery {command.gallery} kept no crops when the entry "
                "was enrolled, or it was enrolled as a vector"
            )
        await self._audit.record(command.caller, "image", command.gallery, 1)
        return image

    async def update(self, command: UpdateEntry) -> Entry:
        """Replace metadata of an entry; its vector stays. Raises NotFound."""
        loaded = self._catalog.find(command.gallery)

        def apply(db: sqlite3.Connection) -> EntryRow:
            entry = records.select_entries_by_id(db, loaded.row.id, [command.entry_id]).get(command.entry_id)
            if entry is None:
                raise no_entry(command.gallery, command.entry_id)
            changed = replace(entry, **command.changes)
            records.update_entry(db, loaded.row.id, changed)
            insert_audit(db, command.caller, "update-entry", command.gallery, 1)
            return changed

        def on_commit(entry: EntryRow) -> "Future[None]":
            return self._catalog.apply_committed(loaded, lambda memory: memory.update_metadata(entry.id, entry))

        row = await self._database.write(apply, on_commit)
        return _entry(row, bool(self._database.read_inline(lambda db: crop_records.select_ids_with_crop(db, [row.id]))))

    async def delete(self, command: DeleteEntry) -> None:
        """Delete an entry with its vector and image. Raises NotFound."""
        loaded = self._catalog.find(command.gallery)

        def apply(db: sqlite3.Connection) -> None:
            if not records.delete_entry(db, loaded.row.id, command.entry_id):
                raise no_entry(command.gallery, command.entry_id)
            insert_audit(db, command.caller, "delete-entry", command.gallery, 1)

        await self._database.write(
            apply, lambda _: self._catalog.apply_committed(loaded, lambda memory: memory.remove([command.entry_id]))
        )


def _entry(row: EntryRow, has_image: bool) -> Entry:
    """The result for an entry. Damaged attributes, which are not JSON, are shown as none."""
    return Entry(row if are_attributes(row.attributes) else replace(row, attributes="{}"), has_image)


def no_entry(name: str, entry_id: int) -> NotFound:
    """The error of a command on an entry that does not exist."""
    return NotFound(f"gallery {name} has no entry {entry_id}")
