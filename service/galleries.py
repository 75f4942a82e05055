"""Which galleries there are: their rows in the database, and their vectors in memory.

The database is the truth and is written first; the galleries in memory follow each commit.
"""

import logging
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from service import gallery_records, kept_records, records, reembedding_records
from service.database import Database
from service.errors import Conflict, ModelMismatch, NotFound
from service.gallery import Gallery
from service.gallery_records import GalleryRow
from service.index import IndexKind
from service.metrics import Metrics
from service.rebuild import rebuild
from service.schema import now

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Held:
    """A gallery: what it is, and its vectors in memory."""

    row: GalleryRow
    memory: Gallery


@dataclass(frozen=True, slots=True)
class Erasure:
    """How many entries were erased, and whether nothing of them is left in the database's files."""

    entries: int
    overwritten: bool


class Galleries:
    """The galleries of one database. Those of another model than the loaded one are searched by their own vectors only.
    Every change says who made it.
    """

    def __init__(
        self, database: Database, fingerprint: str, dim: int, metrics: Metrics, clock: Callable[[], int] = now
    ) -> None:
        self.clock = clock  # of retention; microseconds since 1970
        self._database = database
        self._fingerprint = fingerprint
        self._dim = dim
        self._metrics = metrics
        self._held: dict[str, Held] = {}
        self._exchanging = threading.Lock()

    async def load(self) -> None:
        """Rebuild every gallery in memory. Raises StartupError for a vector that is damaged."""
        for row in await self._database.read(gallery_records.select_galleries):
            if row.name.startswith(gallery_records.UNFINISHED):
                self.drop_import(row)
                continue
            self._hold(row, await self._database.read(partial(rebuild, row, self.clock)))

    async def begin_import(
        self, hidden: str, name: str, purpose: str, retention: int | None, keep_crops: bool
    ) -> GalleryRow:
        """A gallery of this model that nobody sees. Raises Conflict when the name it is to have is taken."""
        if name in self._held:
            raise _taken(name)
        return await self._database.write(
            lambda db: gallery_records.insert_gallery(
                db, hidden, purpose, "auto", self._fingerprint, self._dim, retention, keep_crops
            )
        )

    async def finish_import(self, who: str, name: str, row: GalleryRow) -> None:
        """Give it its name, and its place among the others. Raises Conflict when the name is taken."""
        memory = await self._database.read(partial(rebuild, row, self.clock))

        def apply(db: sqlite3.Connection) -> GalleryRow:
            try:
                gallery_records.rename_gallery(db, row.id, name)
            except sqlite3.IntegrityError:
                raise _taken(name) from None
            records.insert_audit(db, who, "import", name, len(memory))
            return replace(row, name=name)

        await self._database.write(apply, lambda named: self._hold(named, memory))

    def drop_import(self, row: GalleryRow) -> None:
        """Delete what came of it; should that fail, the next start does so."""

        def apply(db: sqlite3.Connection) -> None:
            left = gallery_records.select_gallery(db, row.id)
            if left is not None and left.name.startswith(gallery_records.UNFINISHED):
                gallery_records.delete_gallery(db, row.id)

        self._database.submit_write(apply)

    def rebuilt(self, row: GalleryRow, db: sqlite3.Connection) -> Gallery:
        """The vectors of a gallery in memory, as this connection sees them."""
        return rebuild(row, self.clock, db)

    def exchange(self, held: Held, row: GalleryRow, memory: Gallery) -> None:
        """From now on a gallery is this, with these vectors; whoever searches the former ones ends in peace."""
        with self._exchanging:
            held.row, held.memory = row, memory
        self._metrics.gallery_entries.labels(row.name).set(len(memory))

    def all(self) -> list[Held]:
        """Every gallery, by name."""
        return [self._held[name] for name in sorted(self._held)]

    def is_current(self, row: GalleryRow) -> bool:
        """Whether its vectors are of the loaded model."""
        return (row.fingerprint, row.dim) == (self._fingerprint, self._dim)

    def require_current(self, row: GalleryRow) -> None:
        """Raises ModelMismatch where its vectors are of another model than the loaded one."""
        if not self.is_current(row):
            raise ModelMismatch(
                f"gallery {row.name} was enrolled with model {row.fingerprint[:12]}, and {self._fingerprint[:12]} "
                "is loaded: vectors of two models cannot be compared; start the service with the gallery's bundle, "
                f"or let `pan-serve re-embed {row.name}` bring its kept crops to the loaded model"
            )

    def searched(self, name: str) -> tuple[GalleryRow, Gallery]:
        """A gallery as it is and its vectors, both of one model. Raises NotFound."""
        held = self.find(name)
        with self._exchanging:
            return held.row, held.memory

    async def create(
        self,
        who: str,
        name: str,
        purpose: str,
        index_kind: IndexKind,
        retention: int | None = None,
        keep_crops: bool = False,
    ) -> Held:
        """Raises Conflict when the name is taken."""

        def apply(db: sqlite3.Connection) -> GalleryRow:
            try:
                row = gallery_records.insert_gallery(
                    db, name, purpose, index_kind, self._fingerprint, self._dim, retention, keep_crops
                )
            except sqlite3.IntegrityError:
                raise _taken(name) from None
            records.insert_audit(db, who, "create-gallery", name, 0)
            return row

        await self._database.write(apply, lambda row: self._hold(row, Gallery(self._dim, retention, self.clock)))
        return self.find(name)

    async def update(self, who: str, name: str, change: Callable[[GalleryRow], GalleryRow]) -> Held:
        """Change the purpose, the index, the retention, or whether crops are kept; those that were are erased where
        they are to be no more. Raises NotFound.
        """
        held = self.find(name)

        def apply(db: sqlite3.Connection) -> GalleryRow:
            before = require(db, held.row)
            row = change(before)
            if before.keep_crops and not row.keep_crops:
                records.insert_audit(db, who, "erase-crops", name, kept_records.delete_crops(db, row.id))
                reembedding_records.forget_reembedding(db, row.id)
            gallery_records.update_gallery(db, row)
            records.insert_audit(db, who, "update-gallery", name, 0)
            return row

        def committed(row: GalleryRow) -> None:
            held.row = row
            held.memory.retention = row.retention

        kept = held.row.keep_crops
        row = await self._database.write(apply, committed)
        if kept and not row.keep_crops:
            await self._database.empty_log()
        return held

    async def delete(self, who: str, name: str) -> Erasure:
        """Erase a gallery with all it holds. Raises NotFound."""
        row = self.find(name).row

        def apply(db: sqlite3.Connection) -> int:
            require(db, row)
            count = gallery_records.delete_gallery(db, row.id)
            records.insert_audit(db, who, "delete-gallery", name, count)
            return count

        def committed(_: int) -> None:
            del self._held[name]
            self._metrics.gallery_entries.remove(name)

        count = await self._database.write(apply, committed)
        return Erasure(count, await self._database.empty_log())

    def find(self, name: str) -> Held:
        """Raises NotFound."""
        try:
            return self._held[name]
        except KeyError:
            raise NotFound(f"there is no gallery {name}; GET /v1/galleries lists those there are") from None

    def follow(self, held: Held, change: Callable[[Gallery], None]) -> None:
        """Bring memory up to date with a commit; where that fails, it is made anew from the database."""
        try:
            change(held.memory)
        except Exception:
            log.exception(
                "gallery in memory could not follow a commit; rebuilding it", extra={"gallery": held.row.name}
            )
            held.memory = self._database.submit_read(partial(rebuild, held.row, self.clock)).result()
        self._metrics.gallery_entries.labels(held.row.name).set(len(held.memory))

    def _hold(self, row: GalleryRow, memory: Gallery) -> None:
        self._held[row.name] = Held(row, memory)
        self._metrics.gallery_entries.labels(row.name).set(len(memory))


def _taken(name: str) -> Conflict:
    return Conflict(f"there is a gallery {name} already; choose another name or delete it first")


def require(db: sqlite3.Connection, row: GalleryRow) -> GalleryRow:
    """What the gallery is now: another request may have changed or deleted it while this one waited."""
    current = gallery_records.select_gallery(db, row.id)
    if current is None:
        raise NotFound(f"gallery {row.name} was deleted meanwhile")
    return current
