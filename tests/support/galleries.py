"""A database with one gallery and its index maintenance, without a server."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pan_reid.schemas import IndexKind
from service.core.models import NewEntry
from service.galleries.catalog import GalleryCatalog, LoadedGallery
from service.galleries.commands import CreateGallery
from service.galleries.management import Galleries
from service.index.exact import limit_to_one_core
from service.index.gallery_index import GalleryIndex, Hit
from service.index.metadata import Filter
from service.index.segment import Segment
from service.observability.metrics import Metrics
from service.storage import entries as records
from service.storage.database import Database
from service.workers.index_maintenance import IndexMaintainer

NO_FILTER = Filter()


class IndexRig:
    """One gallery in a database. Tests call its index maintenance, which has no thread of its own here."""

    def __init__(self, folder: Path, kind: IndexKind, dim: int) -> None:
        limit_to_one_core()  # as the maintenance thread of the service
        self.metrics = Metrics()
        self.database = Database(folder / "pan.sqlite3", self.metrics)
        self.galleries = GalleryCatalog(self.database, "f" * 64, dim, self.metrics)
        self.snapshots = folder / "snapshots"
        self.maintainer = IndexMaintainer(self.database, self.galleries, self.snapshots, self.metrics)
        asyncio.run(self._open(kind))

    async def _open(self, kind: IndexKind) -> None:
        await self.galleries.load()
        if not self.galleries.all():
            await Galleries(self.database, self.galleries).create(CreateGallery("me", "lobby", index_kind=kind))

    @property
    def loaded(self) -> LoadedGallery:
        return self.galleries.find("lobby")

    @property
    def index(self) -> GalleryIndex:
        return self.loaded.memory

    @property
    def segment(self) -> Segment:
        return self.index.segment

    @property
    def snapshot_names(self) -> list[str]:
        return sorted(file.name for file in self.snapshots.iterdir())

    def enrol(self, vectors: np.ndarray, cameras: int = 10) -> list[int]:
        """Enrol (n, dim) vectors of 300 persons and some cameras. Returns the entry ids."""
        entries = [NewEntry(f"p{n % 300}", f"c{n % cameras}") for n in range(len(vectors))]
        ids = self.database.submit_write(
            lambda db: records.insert_entries(db, self.loaded.row.id, entries, vectors)
        ).result()
        self.index.add(ids, entries, vectors)
        return ids

    def delete(self, ids: list[int]) -> None:
        def apply(db: Any) -> None:
            for entry in ids:
                records.delete_entry(db, self.loaded.row.id, entry)

        self.database.submit_write(apply).result()
        self.index.remove(ids)

    def maintain(self) -> set[str]:
        """Run index maintenance until there is nothing left to do. Returns what it did."""
        actions = set()
        while action := self.maintain_once():
            actions.add(action)
        return actions

    def maintain_once(self) -> str | None:
        """Run one step of index maintenance. Returns what it did."""
        before = self._actions()
        self.maintainer.run_once(self.loaded)
        return next((name for name, count in self._actions().items() if count > before.get(name, 0)), None)

    def _actions(self) -> dict[str, float]:
        samples = next(iter(self.metrics.upkeep_seconds.collect())).samples
        return {one.labels["done"]: one.value for one in samples if one.name.endswith("_count")}

    def search(self, query: np.ndarray, where: Filter = NO_FILTER, top_k: int = 10) -> list[Hit]:
        """The hits of one (dim,) query."""
        return self.index.search([query[None]], top_k, where)[0]


OpenRig = Callable[..., IndexRig]


def recall_at_10(
    rig: IndexRig, queries: np.ndarray, where: Filter = NO_FILTER, among: list[int] | None = None
) -> float:
    """The share of the ten nearest stored vectors that searches with (Q, dim) queries find.

    `among` are the ids of the entries that pass the filter. Checks that every score is the true cosine.
    """
    stored = rig.database.submit_read(
        lambda db: db.execute(
            f"SELECT id, {records.VECTOR} AS vector FROM {records.WITH_VECTORS} ORDER BY id"
        ).fetchall()
    ).result()
    ids = np.array([row["id"] for row in stored])
    cosines = queries @ np.frombuffer(b"".join(row["vector"] for row in stored), "<f4").reshape(len(ids), -1).T
    passing = cosines if among is None else np.where(np.isin(ids, among), cosines, -np.inf)
    nearest = ids[np.argpartition(-passing, 10, axis=1)[:, :10]]
    found = 0
    for query, truth, cosine in zip(queries, nearest, cosines, strict=True):
        hits = rig.search(query, where)
        entries = np.array([hit.entry_id for hit in hits])
        np.testing.assert_allclose([hit.score for hit in hits], cosine[np.searchsorted(ids, entries)], atol=1e-5)
        found += len(np.intersect1d(entries, truth))
    return found / nearest.size


def clustered(count: int, seed: int = 0, dim: int = 32) -> np.ndarray:
    """(count, dim) unit vectors like those of crops: 300 persons, whose differences lie in a few dimensions."""
    rng = np.random.default_rng(seed)
    spread = np.exp(-np.arange(dim) / 8)
    centres = np.random.default_rng(99).normal(size=(300, dim)) * spread
    vectors = centres[rng.integers(0, 300, count)] + 0.5 * rng.normal(size=(count, dim)) * spread
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
