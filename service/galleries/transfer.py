"""Use cases on gallery files: export and import, a batch at a time, so that memory stays small and others can work."""

import sqlite3
import uuid
from dataclasses import replace

import numpy as np

from bundle import ImageError
from service.core.clock import now
from service.core.errors import Conflict, InvalidRequest, ModelMismatch
from service.core.models import EntryRow, since
from service.core.types import Vectors
from service.galleries.catalog import GalleryCatalog, LoadedGallery, require_gallery
from service.galleries.commands import (
    AbortImport,
    BeginImport,
    ExportGallery,
    FinishImport,
    ImportedEntry,
    ImportEntries,
)
from service.galleries.management import gallery_info, name_taken
from service.galleries.query.vectors import unit_vector
from service.galleries.results import ExportCursor, ExportPage, GalleryInfo
from service.inference.embedder import Embedder
from service.storage import crops as crop_records
from service.storage import entries as records
from service.storage import galleries as gallery_records
from service.storage.audit import insert_audit
from service.storage.connection import read_transaction
from service.storage.database import Database
from service.storage.entries import ExportedRow
from service.storage.galleries import GalleryRow

_BATCH = 500  # entries of one export page
_BATCH_BYTES = 4 * 2**20  # of vectors and images in one export page; one entry more may exceed it


class Transfer:
    """An import is stored under a hidden name, which no caller can give, until it is finished."""

    def __init__(self, database: Database, catalog: GalleryCatalog, embedder: Embedder) -> None:
        self._database = database
        self._catalog = catalog
        self._embedder = embedder

    async def begin_export(self, command: ExportGallery) -> ExportCursor:
        """Start an export of the entries that are enrolled now. It is in the audit log. Raises NotFound."""
        row = self._catalog.find(command.gallery).row

        def apply(db: sqlite3.Connection) -> int:
            insert_audit(db, command.caller, "export", row.name, records.count_entries(db, row.id))
            return records.max_entry_id(db, row.id)

        return ExportCursor(row, await self._database.write(apply))

    async def export_page(self, cursor: ExportCursor) -> ExportPage:
        """The next entries of an export. Raises NotFound, and Conflict if the gallery has changed its model."""
        row = cursor.gallery

        def query(db: sqlite3.Connection) -> list[ExportedRow]:
            with read_transaction(db):
                if require_gallery(db, row).fingerprint != row.fingerprint:
                    raise Conflict(f"gallery {row.name} has changed to another model meanwhile; export it again")
                return records.select_for_export(
                    db, row.id, after=cursor.after, last=cursor.last, limit=_BATCH, size=_BATCH_BYTES
                )

        loaded = self._catalog.find(row.name)
        page = await self._database.read(query)
        if not page:
            return ExportPage((), None)
        entries = tuple(one for one in page if self._is_exported(loaded, row, one.row))
        return ExportPage(entries, replace(cursor, after=page[-1].row.id))

    def _is_exported(self, loaded: LoadedGallery, row: GalleryRow, entry: EntryRow) -> bool:
        if entry.id in loaded.memory.set_aside:
            return False
        return row.retention is None or since(entry) > self._catalog.clock() - row.retention

    async def begin_import(self, command: BeginImport) -> int:
        """Create a hidden gallery and return its id. Raises ModelMismatch, and Conflict if the name is taken."""
        catalog = self._catalog
        if (command.fingerprint, command.dim) != (catalog.fingerprint, catalog.dim):
            raise ModelMismatch(
                f"the export is of model {command.fingerprint[:12]}, and {catalog.fingerprint[:12]} is loaded: start "
                "the service with the bundle of the export to import it, or enrol its crops in a new gallery"
            )
        if command.gallery in catalog:
            raise name_taken(command.gallery)
        row = await self._database.write(
            lambda db: gallery_records.insert_gallery(
                db,
                f"{gallery_records.IMPORT_PREFIX}{uuid.uuid4().hex}",
                command.purpose,
                "auto",
                command.fingerprint,
                command.dim,
                command.retention,
                command.keep_crops,
            )
        )
        return row.id

    async def import_entries(self, command: ImportEntries) -> None:
        """Add entries to a hidden gallery.

        Raises InvalidRequest with the line of an entry whose vector or image cannot be used, or a storage error.
        """
        images = [await self._reencoded(one) for one in command.entries]
        vectors = np.stack([self._vector(one) for one in command.entries])
        # The clock of another machine may be ahead. An entry from the future would never expire.
        entries = [replace(one.entry, created_at=min(one.entry.created_at, now())) for one in command.entries]

        def apply(db: sqlite3.Connection) -> None:
            ids = records.insert_entries(db, command.gallery_id, entries, vectors)
            crop_records.insert_crops(db, ids, images)

        await self._database.write(apply)

    async def finish_import(self, command: FinishImport) -> GalleryInfo:
        """Serve a hidden gallery under its name. It is in the audit log. Raises Conflict if the name is taken."""
        catalog, name = self._catalog, command.gallery
        hidden = await self._database.read(lambda db: _hidden_gallery(db, command.gallery_id))
        assert hidden is not None
        memory = await self._database.read(lambda db: catalog.rebuilt(hidden, db))

        def apply(db: sqlite3.Connection) -> GalleryRow:
            try:
                gallery_records.rename_gallery(db, hidden.id, name)
            except sqlite3.IntegrityError:
                raise name_taken(name) from None
            insert_audit(db, command.caller, "import", name, len(memory))
            return replace(hidden, name=name)

        await self._database.write(apply, lambda row: catalog.add(row, memory))
        return gallery_info(catalog, catalog.find(name))

    async def abort_import(self, command: AbortImport) -> None:
        """Queue the deletion of a hidden gallery. If it fails, the next start of the service deletes it."""

        def apply(db: sqlite3.Connection) -> None:
            if _hidden_gallery(db, command.gallery_id) is not None:
                gallery_records.delete_gallery(db, command.gallery_id)

        self._database.submit_write(apply)

    async def _reencoded(self, one: ImportedEntry) -> bytes | None:
        """The image as this service encodes it. No bytes of a foreign image are stored."""
        if one.image is None:
            return None
        try:
            return await self._embedder.reencode(one.image)
        except ImageError as error:
            raise InvalidRequest(f"line {one.line}: {error}") from None

    def _vector(self, one: ImportedEntry) -> Vectors:
        try:
            return unit_vector(one.vector, self._catalog.dim)
        except InvalidRequest as error:
            raise InvalidRequest(f"line {one.line}: {error}") from None


def _hidden_gallery(db: sqlite3.Connection, gallery_id: int) -> GalleryRow | None:
    row = gallery_records.select_gallery(db, gallery_id)
    return row if row is not None and row.name.startswith(gallery_records.IMPORT_PREFIX) else None
