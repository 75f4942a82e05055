"""The search use case: from a query to vectors, to hits of the index, to entries of the database."""

import sqlite3
from collections.abc import Sequence

import numpy as np

from bundle import Calibration
from service.core.errors import BodyTooLarge, Conflict, EntryDamaged, ModelMismatch
from service.core.models import EntryRow
from service.core.types import Vectors
from service.galleries.audit import Audit
from service.galleries.catalog import GalleryCatalog, require_gallery
from service.galleries.commands import EntryQuery, Images, SearchGallery, VectorQuery
from service.galleries.entries import no_entry
from service.galleries.outcomes import require_all
from service.galleries.query.filter import search_filter
from service.galleries.query.match_policy import MatchPolicy, resolve_threshold
from service.galleries.query.searcher import IndexQuery, Searcher
from service.galleries.query.vectors import mean_direction, unit_vector
from service.galleries.results import FoundEntry, FoundPerson, SearchResult
from service.index.gallery_index import Grouping, Hit
from service.index.reranking import Reranking
from service.inference.embedder import Embedder
from service.storage import entries as records
from service.storage.connection import read_transaction
from service.storage.database import Database
from service.storage.galleries import GalleryRow

_FEW = 100  # entries: reading them takes less time than waking a reader thread


class Search:
    """Every search is in the audit log before its result is returned."""

    def __init__(
        self,
        database: Database,
        catalog: GalleryCatalog,
        embedder: Embedder,
        searcher: Searcher,
        audit: Audit,
        calibration: Calibration | None,
        max_top_k: int,
    ) -> None:
        """`calibration` is that of the loaded model."""
        self._database = database
        self._catalog = catalog
        self._embedder = embedder
        self._searcher = searcher
        self._audit = audit
        self._calibration = calibration
        self._max_top_k = max_top_k

    async def search(self, command: SearchGallery) -> SearchResult:
        """The best entries or persons.

        Raises NotFound for the gallery or an entry of the query, BodyTooLarge for a `top_k` over the limit,
        ModelMismatch, NotCalibrated, InvalidRequest, EntryDamaged, Conflict, a storage error, or the errors of
        `Embedder.embed`.
        """
        options = command.options
        if options.top_k > self._max_top_k:
            raise BodyTooLarge(f"top_k is {options.top_k}; at most {self._max_top_k} results are given")
        gallery = self._catalog.snapshot(command.gallery)
        policy = self._policy(gallery.row, command)
        async with self._audit.record_concurrently(command.caller, "search", gallery.row.name, len(command.query)):
            vectors, own_entries = await self._query_vectors(gallery.row, command.query)
            fused = vectors if options.fuse == "best" else mean_direction(list(vectors))[None]
            query = IndexQuery(gallery.memory, fused, options.top_k, search_filter(options, own_entries))
            found = await self._find(gallery.row, query, command)
        return SearchResult(gallery.row.name, len(vectors), found, options.group_by is not None, policy)

    def _policy(self, row: GalleryRow, command: SearchGallery) -> MatchPolicy:
        """The policy of the gallery's model. Raises ModelMismatch if the query or the rate is of another model."""
        options, query = command.options, command.query
        of_loaded_model = isinstance(query, Images) or (isinstance(query, VectorQuery) and options.fingerprint is None)
        if of_loaded_model or options.false_positive_rate is not None:
            self._catalog.require_current(row)
        if options.fingerprint is not None and options.fingerprint != row.fingerprint:
            raise ModelMismatch(
                f"the query is of model {options.fingerprint[:12]}, and gallery {row.name} is of model "
                f"{row.fingerprint[:12]}: vectors of two models cannot be compared"
            )
        calibration = self._calibration if self._catalog.is_current(row) else None
        return resolve_threshold(calibration, options.false_positive_rate, options.threshold)

    async def _query_vectors(
        self, row: GalleryRow, query: Images | VectorQuery | EntryQuery
    ) -> tuple[Vectors, Sequence[EntryRow]]:
        """(n, D) unit vectors, and the entries they are taken from."""
        if isinstance(query, Images):
            outcomes = await self._embedder.embed(query.images, query.boxes)
            return np.stack(require_all(outcomes, query.names)), ()
        if isinstance(query, VectorQuery):
            return np.stack([unit_vector(one, row.dim) for one in query.vectors]), ()
        entries, vectors = await self._database.read(lambda db: _select_with_vectors(db, row, query.ids))
        return np.stack(vectors), entries

    async def _find(
        self, row: GalleryRow, query: IndexQuery, command: SearchGallery
    ) -> tuple[FoundEntry, ...] | tuple[FoundPerson, ...]:
        options = command.options
        if options.group_by is None:
            if options.rerank is None:
                hits = await self._searcher.entries(query)
            else:
                hits = await self._searcher.reranked(query, Reranking(**dict(options.rerank)))
            rows = await self._entries(row, [hit.entry_id for hit in hits])
            return _found_entries(hits, rows)
        persons = await self._searcher.persons(query, Grouping(options.group_score, options.examples))
        rows = await self._entries(row, [hit.entry_id for one in persons for hit in one.examples])
        return tuple(
            FoundPerson(one.person_id, one.score, one.best, one.mean, one.entries, _found_entries(one.examples, rows))
            for one in persons
        )

    async def _entries(self, row: GalleryRow, ids: Sequence[int]) -> dict[int, EntryRow]:
        def query(db: sqlite3.Connection) -> dict[int, EntryRow]:
            return records.select_entries_by_id(db, row.id, ids)

        return self._database.read_inline(query) if len(ids) <= _FEW else await self._database.read(query)


def _found_entries(hits: Sequence[Hit], rows: dict[int, EntryRow]) -> tuple[FoundEntry, ...]:
    """The hits with their metadata. Entries that were deleted after the search are left out."""
    return tuple(FoundEntry(rows[hit.entry_id], hit.score, hit.distance) for hit in hits if hit.entry_id in rows)


def _select_with_vectors(
    db: sqlite3.Connection, row: GalleryRow, ids: Sequence[int]
) -> tuple[list[EntryRow], list[Vectors]]:
    """Entries and their (D,) unit vectors, of the model that `row` names.

    Raises NotFound for a missing entry, EntryDamaged, and Conflict if the gallery has changed its model.
    """
    with read_transaction(db):
        if require_gallery(db, row).fingerprint != row.fingerprint:
            raise Conflict(f"gallery {row.name} has just changed to another model; send the request again")
        entries, vectors = records.select_entries_by_id(db, row.id, ids), records.select_vectors(db, ids, row.dim)
    for entry_id in ids:
        if entry_id not in entries:
            raise no_entry(row.name, entry_id)
        if entry_id not in vectors:
            raise EntryDamaged(
                f"the vector of entry {entry_id} of gallery {row.name} is damaged; delete the entry and enrol its crop "
                "again, or stop the service and run `pan-serve check --repair`"
            )
    return [entries[entry_id] for entry_id in ids], [vectors[entry_id] for entry_id in ids]
