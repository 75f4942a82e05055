"""What galleries hold: entries, and the people they show. A change says who made it, and returns when it is on disk."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from service.core.errors import Conflict, EntryDamaged, InvalidRequest, NoImage, NotFound
from service.core.models import EntryRow, NewEntry
from service.core.types import Vectors
from service.galleries.catalog import Erasure, GalleryCatalog, LoadedGallery, require
from service.galleries.enrolment_results import Batch
from service.storage import crops as kept_records
from service.storage import entries as records
from service.storage import idempotency as answered_records
from service.storage.audit import insert_audit
from service.storage.connection import read_transaction
from service.storage.database import Database
from service.storage.entries import PersonRow
from service.storage.galleries import GalleryRow
from service.storage.idempotency import IdempotentResponse

_FEW = 100  # entries, which are looked up in less time than another thread needs to wake


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The caller's key for a request, and the SHA-256 of what it asks."""

    key: str
    request: str


class Entries:
    """The entries of all galleries, by the name of their gallery."""

    def __init__(self, database: Database, galleries: GalleryCatalog) -> None:
        self._database = database
        self._galleries = galleries

    async def answered(self, held: LoadedGallery, key: IdempotencyKey) -> Batch | None:
        """What became of an earlier request with this key. Raises InvalidRequest if it asked something else."""
        row = held.row
        return await self._database.read(lambda db: self._earlier(db, row, key))

    async def enrol(
        self,
        who: str,
        held: LoadedGallery,
        entries: Sequence[NewEntry],
        vectors: Vectors,
        batch: Batch,
        key: IdempotencyKey | None,
        images: Sequence[bytes | None] | None = None,
    ) -> Batch:
        """Keep (n, D) unit vectors with what is known of each, and `images` where the gallery keeps crops. `batch` says
        which crops of the request these are; it is answered with the first of the new ids, and kept under the key: a
        second request with it gets the same again and enrols nothing.

        Raises NotFound where the gallery was deleted meanwhile, ModelMismatch, InvalidRequest for a key that was used
        for another request, or a storage error.
        """
        row = held.row
        self._galleries.require_current(row)

        def apply(db: sqlite3.Connection) -> tuple[list[int], Batch]:
            current = require(db, row)
            if key is not None and (earlier := self._earlier(db, row, key)):
                return [], earlier
            ids = records.insert_entries(db, row.id, entries, vectors)
            if current.keep_crops and images is not None:
                kept_records.insert_crops(db, ids, images)
            enrolled = replace(batch, first_id=ids[0] if ids else 0)
            if key is not None:
                answered_records.insert_response(db, row.id, key.key, IdempotentResponse(key.request, enrolled.dumps()))
            insert_audit(db, who, "enrol", row.name, len(ids))
            return ids, enrolled

        def committed(result: tuple[list[int], Batch]) -> Future[None] | None:
            ids, _ = result
            return self._galleries.follow(held, lambda memory: memory.add(ids, entries, vectors)) if ids else None

        _, enrolled = await self._database.write(apply, committed)
        return enrolled

    def _earlier(self, db: sqlite3.Connection, row: GalleryRow, key: IdempotencyKey) -> Batch | None:
        oldest = self._galleries.clock() - answered_records.RETENTION
        return _same(answered_records.select_response(db, row.id, key.key, oldest=oldest), key)

    async def page(
        self, name: str, *, after: int, limit: int, person_id: str | None, camera_id: str | None
    ) -> list[EntryRow]:
        """A page of entries in the order of enrolment. Raises NotFound."""
        row = self._galleries.find(name).row
        return await self._database.read(
            lambda db: records.select_entries(
                db, row.id, after=after, limit=limit, person_id=person_id, camera_id=camera_id
            )
        )

    async def by_id(self, name: str, ids: Sequence[int]) -> dict[int, EntryRow]:
        """Those of these entries that are there. Raises NotFound for the gallery."""
        row = self._galleries.find(name).row

        def query(db: sqlite3.Connection) -> dict[int, EntryRow]:
            return records.select_entries_by_id(db, row.id, ids)

        return self._database.read_inline(query) if len(ids) <= _FEW else await self._database.read(query)

    async def get(self, name: str, entry_id: int) -> EntryRow:
        """Raises NotFound."""
        found = await self.by_id(name, [entry_id])
        if entry_id not in found:
            raise _no_entry(name, entry_id)
        return found[entry_id]

    async def kept(self, ids: Sequence[int]) -> set[int]:
        """Those of these entries whose picture is kept. At most 10,000."""
        return await self._database.read(lambda db: kept_records.select_ids_with_crop(db, ids))

    async def image(self, who: str, name: str, entry_id: int) -> bytes:
        """The picture of an entry, as JPEG. Raises NotFound, NoImage, or a storage error."""
        await self.get(name, entry_id)
        image = await self._database.read(lambda db: kept_records.select_crop(db, entry_id))
        if image is None:
            raise NoImage(
                f"no picture of entry {entry_id} is kept: gallery {name} kept no crops when it was enrolled, or it "
                "came as a vector"
            )
        await self.audit(who, "image", name, 1)
        return image

    async def with_vectors(self, row: GalleryRow, ids: Sequence[int]) -> list[tuple[EntryRow, Vectors]]:
        """These entries and their (D,) unit vectors, of the model that the gallery had. Raises NotFound where one is
        missing, EntryDamaged, Conflict where the gallery has gone over to another model since.
        """

        def query(db: sqlite3.Connection) -> tuple[dict[int, EntryRow], dict[int, Vectors]]:
            with read_transaction(db):
                if require(db, row).fingerprint != row.fingerprint:
                    raise Conflict(f"gallery {row.name} has just gone over to another model; ask again")
                return records.select_entries_by_id(db, row.id, ids), records.select_vectors(db, ids, row.dim)

        entries, vectors = await self._database.read(query)
        for entry_id in ids:
            if entry_id not in entries:
                raise _no_entry(row.name, entry_id)
            if entry_id not in vectors:
                raise EntryDamaged(
                    f"the vector of entry {entry_id} of gallery {row.name} is damaged; delete the entry and enrol its "
                    "crop again, or stop the service and let `pan-serve check --repair` mend what can be mended"
                )
        return [(entries[entry_id], vectors[entry_id]) for entry_id in ids]

    async def update(self, who: str, name: str, entry_id: int, change: Callable[[EntryRow], EntryRow]) -> EntryRow:
        """Change what is known of an entry; its vector stays. Raises NotFound."""
        held = self._galleries.find(name)

        def apply(db: sqlite3.Connection) -> EntryRow:
            entry = records.select_entries_by_id(db, held.row.id, [entry_id]).get(entry_id)
            if entry is None:
                raise _no_entry(name, entry_id)
            changed = change(entry)
            records.update_entry(db, held.row.id, changed)
            insert_audit(db, who, "update-entry", name, 1)
            return changed

        def committed(entry: EntryRow) -> Future[None]:
            return self._galleries.follow(held, lambda memory: memory.update_metadata(entry.id, entry))

        return await self._database.write(apply, committed)

    async def delete(self, who: str, name: str, entry_id: int) -> None:
        """Raises NotFound."""
        held = self._galleries.find(name)
        row = held.row

        def apply(db: sqlite3.Connection) -> list[int]:
            if not records.delete_entry(db, row.id, entry_id):
                raise _no_entry(name, entry_id)
            insert_audit(db, who, "delete-entry", name, 1)
            return [entry_id]

        await self._database.write(apply, lambda ids: self._galleries.follow(held, lambda memory: memory.remove(ids)))

    async def persons(self, name: str, *, after: str, limit: int) -> list[PersonRow]:
        """A page of persons, by id. Raises NotFound for the gallery."""
        row = self._galleries.find(name).row
        return await self._database.read(lambda db: records.select_persons(db, row.id, after=after, limit=limit))

    async def erase_person(self, who: str, name: str, person_id: str) -> Erasure:
        """Erase every entry of a person. Raises NotFound when there were none."""
        held = self._galleries.find(name)
        row = held.row

        def apply(db: sqlite3.Connection) -> list[int]:
            ids = records.delete_person(db, row.id, person_id)
            if not ids:
                raise NotFound(f"gallery {name} has no person of this id; nothing was erased")
            insert_audit(db, who, "erase-person", name, len(ids))
            return ids

        erased = await self._database.write(
            apply, lambda ids: self._galleries.follow(held, lambda memory: memory.remove(ids))
        )
        return Erasure(len(erased), await self._database.truncate_wal())

    async def audit(self, who: str, action: str, gallery: str, crops: int) -> None:
        """Record what changes nothing and tells something; done when it is on disk."""
        await self._database.write(lambda db: insert_audit(db, who, action, gallery, crops))

    @asynccontextmanager
    async def audit_concurrently(self, who: str, action: str, gallery: str, crops: int) -> AsyncIterator[None]:
        """Record a question beside the work on its answer: at the end the record is on disk, also where the work
        failed. Raises a storage error, and then nobody has the answer.
        """
        recorded = asyncio.create_task(self.audit(who, action, gallery, crops))
        try:
            yield
        finally:
            await recorded


def _same(earlier: IdempotentResponse | None, key: IdempotencyKey) -> Batch | None:
    if earlier is None:
        return None
    if earlier.request != key.request:
        raise InvalidRequest("this Idempotency-Key was used for another request; take a new key for each request")
    return Batch.loads(earlier.answer)


def _no_entry(name: str, entry_id: int) -> NotFound:
    return NotFound(f"gallery {name} has no entry {entry_id}")
