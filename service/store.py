"""Everything that is kept: galleries, their entries and people, and the audit of what was done with them.

The database is the truth and is written first; the galleries in memory follow each commit. Every change says who made
it.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from service import records
from service.database import Database
from service.engine import Vectors
from service.errors import Conflict, InvalidRequest, ModelMismatch, NotFound, StartupError
from service.gallery import Gallery
from service.metrics import Metrics
from service.records import Answered, EntryRow, GalleryRow, NewEntry, PersonRow

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    row: GalleryRow
    memory: Gallery | None  # None: enrolled with another model, so never searched


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The caller's key for a request, and the SHA-256 of what it asks."""

    key: str
    request: str


class Store:
    """The galleries of one database, searched with one model. Lives on one event loop."""

    def __init__(self, database: Database, fingerprint: str, dim: int, metrics: Metrics) -> None:
        self._database = database
        self._fingerprint = fingerprint
        self._dim = dim
        self._metrics = metrics
        self._held: dict[str, _Held] = {}

    async def load(self) -> None:
        """Rebuild every gallery of this model in memory. Raises StartupError for a vector that is damaged."""
        for row in await self._read(records.select_galleries):
            memory = None
            if (row.fingerprint, row.dim) == (self._fingerprint, self._dim):
                memory = await self._read(partial(_rebuild, row))
            self._hold(row, memory)

    # -- galleries

    def galleries(self) -> list[GalleryRow]:
        """Every gallery, by name."""
        return [self._held[name].row for name in sorted(self._held)]

    def gallery(self, name: str) -> GalleryRow:
        """Raises NotFound."""
        return self._find(name).row

    def memory(self, name: str) -> Gallery:
        """The gallery to search. Raises NotFound, and ModelMismatch for one that was enrolled with another model."""
        held = self._find(name)
        if held.memory is None:
            raise ModelMismatch(
                f"gallery {name} was enrolled with model {held.row.fingerprint[:12]}, and {self._fingerprint[:12]} "
                "is loaded: vectors of two models cannot be compared; start the service with the gallery's bundle, "
                "or enrol its crops again into a new gallery"
            )
        return held.memory

    def answers(self, row: GalleryRow) -> bool:
        """Whether the gallery was enrolled with the model that is loaded."""
        return self._find(row.name).memory is not None

    async def create_gallery(self, who: str, name: str, purpose: str, index_kind: str) -> GalleryRow:
        """Raises Conflict when the name is taken."""

        def apply(db: sqlite3.Connection) -> GalleryRow:
            try:
                row = records.insert_gallery(db, name, purpose, index_kind, self._fingerprint, self._dim)
            except sqlite3.IntegrityError:
                raise Conflict(f"there is a gallery {name} already; choose another name or delete it first") from None
            records.insert_audit(db, who, "create-gallery", name, 0)
            return row

        return await self._write(apply, lambda row: self._hold(row, Gallery(self._dim)))

    async def update_gallery(self, who: str, name: str, purpose: str) -> GalleryRow:
        """Raises NotFound."""
        held = self._find(name)

        def apply(db: sqlite3.Connection) -> GalleryRow:
            _require(db, held.row)
            records.update_gallery(db, held.row.id, purpose)
            records.insert_audit(db, who, "update-gallery", name, 0)
            return replace(held.row, purpose=purpose)

        def committed(row: GalleryRow) -> None:
            held.row = row

        return await self._write(apply, committed)

    async def delete_gallery(self, who: str, name: str) -> int:
        """Erase a gallery with all it holds; how many entries it had. Raises NotFound."""
        row = self._find(name).row

        def apply(db: sqlite3.Connection) -> int:
            _require(db, row)
            count = records.delete_gallery(db, row.id)
            records.insert_audit(db, who, "delete-gallery", name, count)
            return count

        def committed(_: int) -> None:
            del self._held[name]
            self._metrics.gallery_entries.remove(name)

        return await self._write(apply, committed)

    # -- entries

    async def answered(self, name: str, key: IdempotencyKey) -> Answered | None:
        """What an earlier request with this key was answered. Raises InvalidRequest if it asked something else."""
        row = self._find(name).row
        return _same(await self._read(lambda db: records.select_answered(db, row.id, key.key)), key)

    async def enrol(
        self,
        who: str,
        name: str,
        entries: Sequence[NewEntry],
        vectors: Vectors,
        answer: Callable[[list[int]], tuple[int, bytes]],
        key: IdempotencyKey | None,
    ) -> Answered:
        """Keep (n, D) unit vectors with what is known of each. `answer` makes status and body from the new ids; they
        are kept under the key, and a second request with it gets them again and enrols nothing.

        Raises NotFound, ModelMismatch, InvalidRequest for a key that was used for another request, or a storage error.
        """
        self.memory(name)
        held = self._find(name)
        row = held.row

        def apply(db: sqlite3.Connection) -> tuple[list[int], Answered]:
            _require(db, row)
            if key is not None and (earlier := _same(records.select_answered(db, row.id, key.key), key)):
                return [], earlier
            ids = records.insert_entries(db, row.id, entries, vectors)
            answered = Answered(key.request if key else "", *answer(ids))
            if key is not None:
                records.insert_answered(db, row.id, key.key, answered)
            records.insert_audit(db, who, "enrol", name, len(ids))
            return ids, answered

        def committed(result: tuple[list[int], Answered]) -> None:
            ids, _ = result
            persons = [entry.person_id for entry in entries]
            cameras = [entry.camera_id for entry in entries]
            if ids:
                self._follow(held, lambda memory: memory.add(ids, persons, cameras, vectors))

        _, answered = await self._write(apply, committed)
        return answered

    async def entries(
        self, name: str, *, after: int, limit: int, person_id: str | None, camera_id: str | None
    ) -> list[EntryRow]:
        """A page of entries in the order of enrolment. Raises NotFound."""
        row = self._find(name).row
        return await self._read(
            lambda db: records.select_entries(
                db, row.id, after=after, limit=limit, person_id=person_id, camera_id=camera_id
            )
        )

    async def entries_by_id(self, name: str, ids: Sequence[int]) -> dict[int, EntryRow]:
        """Those of these entries that are there. Raises NotFound for the gallery."""
        row = self._find(name).row
        return await self._read(lambda db: records.select_entries_by_id(db, row.id, ids))

    async def entry(self, name: str, entry_id: int) -> EntryRow:
        """Raises NotFound."""
        found = await self.entries_by_id(name, [entry_id])
        if entry_id not in found:
            raise _no_entry(name, entry_id)
        return found[entry_id]

    async def vector(self, name: str, entry_id: int) -> Vectors:
        """The (D,) unit vector of an entry. Raises NotFound."""
        await self.entry(name, entry_id)
        vector = await self._read(lambda db: records.select_vector(db, entry_id))
        if vector is None:
            raise _no_entry(name, entry_id)
        return vector

    async def update_entry(
        self, who: str, name: str, entry_id: int, change: Callable[[EntryRow], EntryRow]
    ) -> EntryRow:
        """Change what is known of an entry; its vector stays. Raises NotFound."""
        held = self._find(name)

        def apply(db: sqlite3.Connection) -> EntryRow:
            entry = records.select_entries_by_id(db, held.row.id, [entry_id]).get(entry_id)
            if entry is None:
                raise _no_entry(name, entry_id)
            changed = change(entry)
            records.update_entry(db, held.row.id, changed)
            records.insert_audit(db, who, "update-entry", name, 1)
            return changed

        def committed(entry: EntryRow) -> None:
            self._follow(held, lambda memory: memory.relabel(entry.id, entry.person_id, entry.camera_id))

        return await self._write(apply, committed)

    async def delete_entry(self, who: str, name: str, entry_id: int) -> None:
        """Raises NotFound."""
        held = self._find(name)
        row = held.row

        def apply(db: sqlite3.Connection) -> list[int]:
            if not records.delete_entry(db, row.id, entry_id):
                raise _no_entry(name, entry_id)
            records.insert_audit(db, who, "delete-entry", name, 1)
            return [entry_id]

        await self._write(apply, lambda ids: self._follow(held, lambda memory: memory.remove(ids)))

    # -- persons

    async def persons(self, name: str, *, after: str, limit: int) -> list[PersonRow]:
        """A page of persons, by id. Raises NotFound for the gallery."""
        row = self._find(name).row
        return await self._read(lambda db: records.select_persons(db, row.id, after=after, limit=limit))

    async def counts(self, name: str) -> tuple[int, int]:
        """How many entries and how many persons a gallery holds. Raises NotFound."""
        row = self._find(name).row
        return await self._read(lambda db: (records.count_entries(db, row.id), records.count_persons(db, row.id)))

    async def erase_person(self, who: str, name: str, person_id: str) -> int:
        """Erase every entry of a person; how many there were. Raises NotFound when there were none."""
        held = self._find(name)
        row = held.row

        def apply(db: sqlite3.Connection) -> list[int]:
            ids = records.delete_person(db, row.id, person_id)
            if not ids:
                raise NotFound(f"gallery {name} has no person of this id; nothing was erased")
            records.insert_audit(db, who, "erase-person", name, len(ids))
            return ids

        erased = await self._write(apply, lambda ids: self._follow(held, lambda memory: memory.remove(ids)))
        return len(erased)

    # -- what was done

    async def audit_search(self, who: str, name: str, queries: int) -> None:
        """Record a search; done when it is on disk."""
        await self._write(lambda db: records.insert_audit(db, who, "search", name, queries))

    async def probe(self) -> None:
        """Write something, if the last write failed: does the database work again?"""
        if self._database.last_write_failed:
            await self._write(records.touch)

    # --

    def _find(self, name: str) -> _Held:
        try:
            return self._held[name]
        except KeyError:
            raise NotFound(f"there is no gallery {name}; GET /v1/galleries lists those there are") from None

    def _hold(self, row: GalleryRow, memory: Gallery | None) -> None:
        self._held[row.name] = _Held(row, memory)
        self._metrics.gallery_entries.labels(row.name).set(len(memory) if memory is not None else 0)

    def _follow(self, held: _Held, change: Callable[[Gallery], None]) -> None:
        """Bring memory up to date with a commit; where that fails, it is made anew from the database."""
        if held.memory is None:
            return
        try:
            change(held.memory)
        except Exception:
            log.exception(
                "gallery in memory could not follow a commit; rebuilding it", extra={"gallery": held.row.name}
            )
            held.memory = self._database.read(partial(_rebuild, held.row)).result()
        self._metrics.gallery_entries.labels(held.row.name).set(len(held.memory))

    async def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.wrap_future(self._database.read(query))

    async def _write(self, apply: Callable[[sqlite3.Connection], T], committed: Callable[[T], None] | None = None) -> T:
        return await asyncio.wrap_future(self._database.write(apply, committed))


def _rebuild(row: GalleryRow, db: sqlite3.Connection) -> Gallery:
    gallery = Gallery(row.dim)
    for chunk in records.stream_vectors(db, row.id):
        entries, persons, cameras, blobs = zip(*chunk, strict=True)
        for entry, blob in zip(entries, blobs, strict=True):
            if len(blob) != 4 * row.dim:
                raise StartupError(
                    f"entry {entry} of gallery {row.name} holds {len(blob)} bytes instead of {4 * row.dim}: "
                    "the database is damaged; restore it from a backup"
                )
        gallery.add(entries, persons, cameras, np.frombuffer(b"".join(blobs), "<f4").reshape(len(blobs), row.dim))
    return gallery


def _require(db: sqlite3.Connection, row: GalleryRow) -> None:
    """Another request may have deleted the gallery while this one waited."""
    if not records.gallery_exists(db, row.id):
        raise NotFound(f"gallery {row.name} was deleted meanwhile")


def _same(earlier: Answered | None, key: IdempotencyKey) -> Answered | None:
    if earlier is not None and earlier.request != key.request:
        raise InvalidRequest("this Idempotency-Key was used for another request; take a new key for each request")
    return earlier


def _no_entry(name: str, entry_id: int) -> NotFound:
    return NotFound(f"gallery {name} has no entry {entry_id}")
