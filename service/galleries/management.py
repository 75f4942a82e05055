"""Use cases on whole galleries: list, create, update, delete."""

import sqlite3
from dataclasses import replace

import numpy as np

from service.core.clock import now
from service.core.errors import Conflict
from service.galleries.catalog import GalleryCatalog, LoadedGallery, require_gallery
from service.galleries.commands import CreateGallery, DeleteGallery, GetGallery, UpdateGallery
from service.galleries.results import Erasure, GalleryInfo, IndexStatus
from service.index.gallery_index import GalleryIndex
from service.storage import crops as crop_records
from service.storage import galleries as gallery_records
from service.storage import reembedding as reembedding_records
from service.storage.audit import insert_audit
from service.storage.database import Database
from service.storage.galleries import GalleryRow


class Galleries:
    """Every change is in the audit log, and on disk when its method returns."""

    def __init__(self, database: Database, catalog: GalleryCatalog) -> None:
        self._database = database
        self._catalog = catalog

    async def list(self) -> tuple[GalleryInfo, ...]:
        """Every gallery, sorted by name."""
        return tuple(gallery_info(self._catalog, loaded) for loaded in self._catalog.all())

    async def get(self, command: GetGallery) -> GalleryInfo:
        """One gallery. Raises NotFound."""
        return gallery_info(self._catalog, self._catalog.find(command.gallery))

    async def create(self, command: CreateGallery) -> GalleryInfo:
        """Create a gallery of the loaded model. Raises Conflict if the name is taken."""
        catalog = self._catalog

        def apply(db: sqlite3.Connection) -> GalleryRow:
            try:
                row = gallery_records.insert_gallery(
                    db,
                    command.name,
                    command.purpose,
                    command.index_kind,
                    catalog.fingerprint,
                    catalog.dim,
                    command.retention,
                    command.keep_crops,
                )
            except sqlite3.IntegrityError:
                raise name_taken(command.name) from None
            insert_audit(db, command.caller, "create-gallery", command.name, 0)
            return row

        memory = GalleryIndex(catalog.dim, command.retention, catalog.clock)
        await self._database.write(apply, lambda row: catalog.add(row, memory))
        return gallery_info(catalog, catalog.find(command.name))

    async def update(self, command: UpdateGallery) -> GalleryInfo:
        """Replace settings of a gallery. Erases kept crops if the gallery keeps none from now on. Raises NotFound."""
        loaded = self._catalog.find(command.gallery)

        def apply(db: sqlite3.Connection) -> GalleryRow:
            before = require_gallery(db, loaded.row)
            row = replace(before, **command.changes)
            if before.keep_crops and not row.keep_crops:
                count = crop_records.delete_crops(db, row.id)
                insert_audit(db, command.caller, "erase-crops", row.name, count)
                reembedding_records.delete_unfinished(db, row.id)
            gallery_records.update_gallery(db, row)
            insert_audit(db, command.caller, "update-gallery", row.name, 0)
            return row

        kept_crops = loaded.row.keep_crops
        row = await self._database.write(apply, lambda row: self._catalog.apply_settings(loaded, row))
        if kept_crops and not row.keep_crops:
            await self._database.truncate_wal()
        return gallery_info(self._catalog, loaded)

    async def delete(self, command: DeleteGallery) -> Erasure:
        """Erase a gallery with everything in it. Raises NotFound."""
        row = self._catalog.find(command.gallery).row

        def apply(db: sqlite3.Connection) -> int:
            require_gallery(db, row)
            count = gallery_records.delete_gallery(db, row.id)
            insert_audit(db, command.caller, "delete-gallery", row.name, count)
            return count

        count = await self._database.write(apply, lambda _: self._catalog.remove(row.id))
        return Erasure(count, await self._database.truncate_wal(), now())


def name_taken(name: str) -> Conflict:
    """The error of a command that would give two galleries one name."""
    return Conflict(f"there is a gallery {name} already; choose another name or delete it first")


def gallery_info(catalog: GalleryCatalog, loaded: LoadedGallery) -> GalleryInfo:
    """The state of a gallery."""
    memory = loaded.memory
    return GalleryInfo(
        loaded.row,
        index_status(memory),
        catalog.is_current(loaded.row),
        loaded.entries,
        len(memory.set_aside),
        memory.persons,
    )


def index_status(memory: GalleryIndex) -> IndexStatus:
    """The index that searches use now. Without a measured approximate index every search is exact."""
    segment = memory.segment
    if (index := segment.ann) is None or (measured := index.measured) is None:
        return IndexStatus("flat", len(memory), True, 1.0, 1.0, 0, 0, None)
    return IndexStatus(
        index.kind,
        int(np.count_nonzero(segment.metadata.live[: measured.rows])),
        segment.is_exact,
        measured.recall,
        measured.recall_recent,
        measured.queries,
        measured.queries_recent,
        measured.at,
    )
