"""The use cases on galleries over a real file, without HTTP and without a model."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np

from service.core.models import NewEntry
from service.galleries.audit import Audit
from service.galleries.catalog import GalleryCatalog
from service.galleries.commands import (
    CreateGallery,
    Crop,
    DeleteEntry,
    DeleteGallery,
    EnrolCrops,
    ErasePerson,
    IdempotencyKey,
    ListEntries,
    UpdateEntry,
)
from service.galleries.enrolment import Enrolment
from service.galleries.enrolment_results import Batch
from service.galleries.entries import Entries
from service.galleries.management import Galleries
from service.galleries.persons import Persons
from service.galleries.results import Erasure
from service.index.metadata import Filter
from service.observability.metrics import Metrics
from service.storage.database import Database

DIM = 4


class Store:
    """Galleries of DIM-dimensional vectors. Every command has the same caller."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(folder / "pan.sqlite3", Metrics())
        self.catalog = GalleryCatalog(self.database, "0" * 64, DIM, Metrics())
        self.audit = Audit(self.database)
        self.galleries = Galleries(self.database, self.catalog)
        self.entries = Entries(self.database, self.catalog, self.audit)
        self.persons = Persons(self.database, self.catalog)
        self.enrolment = Enrolment(self.database, self.catalog, cast(Any, None))  # vectors need no embedder

    async def create(self, name: str) -> None:
        await self.galleries.create(CreateGallery("me", name, index_kind="flat"))

    async def delete(self, name: str) -> Erasure:
        return await self.galleries.delete(DeleteGallery("me", name))

    async def enrol_vectors(
        self, name: str, entries: Sequence[NewEntry], vectors: np.ndarray, key: IdempotencyKey | None = None
    ) -> Batch:
        crops = tuple(Crop(*one) for one in zip(entries, vectors, strict=True))
        return await self.enrolment.enrol(EnrolCrops("me", name, crops, key=key))

    async def enrol(self, name: str, *persons: str) -> list[int]:
        """The ids of new entries with equal vectors."""
        vectors = np.tile(np.eye(1, DIM, dtype=np.float32), (len(persons), 1))
        batch = await self.enrol_vectors(name, [NewEntry(person) for person in persons], vectors)
        return list(range(batch.first_id, batch.first_id + batch.count))

    async def update(self, name: str, entry: int, **changes: Any) -> None:
        await self.entries.update(UpdateEntry("me", name, entry, cast(Any, changes)))

    async def delete_entry(self, name: str, entry: int) -> None:
        await self.entries.delete(DeleteEntry("me", name, entry))

    async def erase(self, name: str, person: str) -> Erasure:
        return await self.persons.erase(ErasePerson("me", name, person))

    async def rows(self, name: str) -> list[Any]:
        """The rows of all entries, at most 1,000."""
        page = await self.entries.page(ListEntries(name, limit=1000))
        return [entry.row for entry in page.entries]

    def found(self, name: str) -> list[int]:
        """The entries that a search finds."""
        query = np.eye(1, DIM, dtype=np.float32)
        return [hit.entry_id for hit in self.catalog.find(name).memory.search([query], 100, Filter())[0]]


@asynccontextmanager
async def opened(folder: Path, *names: str) -> AsyncIterator[Store]:
    """A store with these galleries."""
    store = Store(folder)
    try:
        await store.catalog.load()
        for name in names:
            await store.create(name)
        yield store
    finally:
        await asyncio.to_thread(store.database.close)
