"""A database with one gallery and what looks after its index, for tests; and brute force beside it."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np

from pan_reid.schemas import IndexKind
from service.core.models import NewEntry
from service.galleries.catalog import GalleryCatalog, LoadedGallery
from service.index.gallery_index import GalleryIndex, Hit
from service.index.metadata import Filter
from service.observability.metrics import Metrics
from service.storage import entries as records
from service.storage.database import Database
from service.workers.index_maintenance import IndexMaintainer

ANYTHING = Filter()


class Place:
    """A database with one gallery, and what looks after its index; without a thread of its own."""

    def __init__(self, folder: Path, kind: IndexKind, dim: int) -> None:
        metrics = Metrics()
        self.database = Database(folder / "pan.sqlite3", metrics)
        self.galleries = GalleryCatalog(self.database, "f" * 64, dim, metrics)
        self.folder = folder / "snapshots"
        self.metrics = metrics
        self.upkeep = IndexMaintainer(self.database, self.galleries, self.folder, metrics)
        asyncio.run(self._open(kind))

    async def _open(self, kind: IndexKind) -> None:
        await self.galleries.load()
        if not self.galleries.all():
            await self.galleries.create("me", "lobby", "", kind)

    @property
    def held(self) -> LoadedGallery:
        return self.galleries.find("lobby")

    @property
    def memory(self) -> GalleryIndex:
        return self.held.memory

    def enrol(self, vectors: np.ndarray, cameras: int = 10) -> list[int]:
        entries = [NewEntry(f"p{n % 300}", f"c{n % cameras}") for n in range(len(vectors))]
        ids = self.database.submit_write(
            lambda db: records.insert_entries(db, self.held.row.id, entries, vectors)
        ).result()
        self.memory.add(ids, entries, vectors)
        return ids

    def delete(self, ids: list[int]) -> None:
        def apply(db: Any) -> None:
            for entry in ids:
                records.delete_entry(db, self.held.row.id, entry)

        self.database.submit_write(apply).result()
        self.memory.remove(ids)

    def run_once(self) -> set[str]:
        """What upkeep did until there was nothing left to do."""
        done = set()
        while what := self.tend_once():
            done.add(what)
        return done

    def tend_once(self) -> str | None:
        """What upkeep did first, if anything."""
        before = self.done()
        self.upkeep.run_once(self.held)
        return next((name for name, count in self.done().items() if count > before.get(name, 0)), None)

    def done(self) -> dict[str, float]:
        samples = next(iter(self.metrics.upkeep_seconds.collect())).samples
        return {one.labels["done"]: one.value for one in samples if one.name.endswith("_count")}

    def search(self, query: np.ndarray, where: Filter = ANYTHING, top_k: int = 10) -> list[Hit]:
        return self.memory.search([query[None]], top_k, where)[0]


def near_brute_force(place: Place, queries: np.ndarray) -> float:
    """Share of the ten nearest by the vectors of the database that these queries find."""
    stored = place.database.submit_read(
        lambda db: db.execute(
            f"SELECT id, {records.VECTOR} AS vector FROM {records.WITH_VECTORS} ORDER BY id"
        ).fetchall()
    ).result()
    ids = np.array([row["id"] for row in stored])
    vectors = np.stack([np.frombuffer(row["vector"], "<f4") for row in stored])
    nearest = ids[np.argsort(-(queries @ vectors.T), axis=1)[:, :10]]
    found = [{hit.entry_id for hit in place.search(query)} for query in queries]
    return sum(len(a & set(b)) for a, b in zip(found, nearest.tolist(), strict=True)) / nearest.size
