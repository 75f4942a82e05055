"""The enrolment use case: parsed crops are embedded and then committed. A stream calls it once for each batch."""

import asyncio
import sqlite3
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from bundle import ImageError, PanError
from service.core.errors import InvalidRequest, UnusableImages, item_error
from service.core.models import NewEntry, since
from service.core.types import Vectors
from service.galleries.catalog import GalleryCatalog, LoadedGallery, deleted_meanwhile, require_gallery
from service.galleries.commands import DAY, Crop, EnrolCrops, IdempotencyKey, OpenStream
from service.galleries.enrolment_results import Batch
from service.galleries.query.vectors import unit_vector
from service.galleries.results import EnrolmentTarget
from service.inference.embedder import Embedder
from service.observability import tracing
from service.storage import crops as crop_records
from service.storage import entries as records
from service.storage import idempotency as idempotency_records
from service.storage.audit import insert_audit
from service.storage.database import Database
from service.storage.galleries import GalleryRow
from service.storage.idempotency import IdempotentResponse

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Embedded:
    """The metadata of a crop, its (D,) unit vector, and its image if the gallery keeps crops."""

    entry: NewEntry
    vector: Vectors
    image: bytes | None


_Outcome = _Embedded | PanError


class Enrolment:
    """Stores crops. A crop that cannot be used fails alone."""

    def __init__(self, database: Database, catalog: GalleryCatalog, embedder: Embedder) -> None:
        self._database = database
        self._catalog = catalog
        self._embedder = embedder

    async def open_stream(self, command: OpenStream) -> EnrolmentTarget:
        """The gallery that a stream enrols in. Raises NotFound or ModelMismatch."""
        row = self._catalog.find(command.gallery).row
        self._catalog.require_current(row)
        return EnrolmentTarget(row.name, row.id, row.dim)

    async def enrol(self, command: EnrolCrops) -> Batch:
        """Store crops and return the result of each.

        A command whose key was used before returns the results of the first command and stores nothing.
        Once the commit has begun, a cancellation has no effect: it ends with the results.
        Raises NotFound, ModelMismatch, InvalidRequest for a key that was used with other content, UnusableImages,
        a storage error, or the errors of `Embedder.embed`.
        """
        loaded = self._catalog.find(command.gallery)
        row = loaded.row
        if command.gallery_id not in (None, row.id):
            raise deleted_meanwhile(row.name)
        self._catalog.require_current(row)
        if command.key is not None:
            key = command.key
            earlier = await self._database.read(lambda db: self._find_idempotent_response(db, row, key))
            if earlier is not None:
                return earlier
        outcomes = await self._embed(row, command)
        if not command.is_stream:
            _require_any(outcomes, command.member)
        return await self._commit(loaded, command, outcomes)

    async def _embed(self, row: GalleryRow, command: EnrolCrops) -> list[_Outcome]:
        crops = [self._checked(row, crop) for crop in command.crops]
        sources = [one.source for one in crops if isinstance(one, Crop) and not isinstance(one.source, np.ndarray)]
        embedded = iter(await self._embed_sources(row, sources, command) if sources else [])
        outcomes: list[_Outcome] = []
        for crop in crops:
            if isinstance(crop, PanError):
                outcomes.append(crop)
            elif isinstance(crop.source, np.ndarray):
                outcomes.append(_Embedded(crop.entry, crop.source, None))
            else:
                one = next(embedded)
                outcomes.append(one if isinstance(one, ImageError) else _Embedded(crop.entry, *one))
        return outcomes

    def _checked(self, row: GalleryRow, crop: Crop | PanError) -> Crop | PanError:
        """The crop with its vector as a unit vector; its error if the gallery cannot store it."""
        if isinstance(crop, PanError):
            return crop
        try:
            if isinstance(crop.source, np.ndarray):
                crop = replace(crop, source=unit_vector(crop.source, row.dim))
            _require_unexpired(crop.entry, row, self._catalog.clock())
        except InvalidRequest as error:
            return error
        return crop

    async def _embed_sources(
        self, row: GalleryRow, sources: Sequence[Any], command: EnrolCrops
    ) -> Sequence[tuple[Vectors, bytes | None] | ImageError]:
        images, boxes = (sources, None) if command.frame is None else ([command.frame], sources)
        if row.keep_crops:
            return await self._embedder.embed_and_encode(images, boxes)
        vectors = await self._embedder.embed(images, boxes)
        return [one if isinstance(one, ImageError) else (one, None) for one in vectors]

    async def _commit(self, loaded: LoadedGallery, command: EnrolCrops, outcomes: Sequence[_Outcome]) -> Batch:
        good = [one for one in outcomes if isinstance(one, _Embedded)]
        failures = {place: item_error(one) for place, one in enumerate(outcomes) if isinstance(one, PanError)}
        batch = Batch(len(outcomes), failures, command.digests)
        key, row = command.key, loaded.row
        if key is None and not good:
            return batch
        entries = [one.entry for one in good]
        vectors = np.array([one.vector for one in good], np.float32).reshape(-1, row.dim)

        def apply(db: sqlite3.Connection) -> tuple[list[int], Batch]:
            current = require_gallery(db, row)
            if key is not None and (earlier := self._find_idempotent_response(db, row, key)) is not None:
                return [], earlier
            ids = records.insert_entries(db, row.id, entries, vectors)
            if current.keep_crops:
                crop_records.insert_crops(db, ids, [one.image for one in good])
            stored = replace(batch, first_id=ids[0] if ids else 0)
            if key is not None:
                response = IdempotentResponse(key.request, stored.dumps())
                idempotency_records.insert_response(db, row.id, key.key, response)
            insert_audit(db, command.caller, "enrol", row.name, len(ids))
            return ids, stored

        def on_commit(result: tuple[list[int], Batch]) -> "Future[None] | None":
            ids, _ = result
            if not ids:
                return None
            return self._catalog.apply_committed(loaded, lambda memory: memory.add(ids, entries, vectors))

        with tracing.stage("commit"):
            _, stored = await _uncancelled(self._database.submit_write(apply, on_commit))
        return stored

    def _find_idempotent_response(self, db: sqlite3.Connection, row: GalleryRow, key: IdempotencyKey) -> Batch | None:
        """The results of an earlier command with this key. Raises InvalidRequest if its content was different."""
        oldest = self._catalog.clock() - idempotency_records.RETENTION
        earlier = idempotency_records.select_response(db, row.id, key.key, oldest=oldest)
        if earlier is None:
            return None
        if earlier.request != key.request:
            raise InvalidRequest("this Idempotency-Key was used for another request; use a new key for each request")
        return Batch.loads(earlier.answer)


def _require_unexpired(entry: NewEntry, row: GalleryRow, clock: int) -> None:
    """Raises InvalidRequest for a crop that would expire at once."""
    if row.retention is not None and clock - since(entry) >= row.retention:
        days = f"{row.retention / DAY:g} days"
        raise InvalidRequest(
            f"the crop was captured more than {days} ago, and gallery {row.name} keeps entries no longer; leave it out",
            [{"at": "captured_at", "problem": f"more than {days} ago"}],
        )


def _require_any(outcomes: Sequence[_Outcome], member: str) -> None:
    """Raises if no crop can be used: the error of the crop if there is one crop, else one error for all."""
    errors = [outcome for outcome in outcomes if isinstance(outcome, PanError)]
    if len(errors) < len(outcomes):
        return
    if len(errors) == 1:
        raise errors[0]
    failures = [
        {"at": f"{member}.{place}", "problem": str(error), "code": error.code} for place, error in enumerate(errors)
    ]
    kind = UnusableImages if any(isinstance(error, ImageError) for error in errors) else InvalidRequest
    raise kind(f"none of the {len(errors)} crops can be used; the first: {errors[0]}", failures)


async def _uncancelled(submitted: "Future[T]") -> T:
    """The result of a write, also if the caller is cancelled meanwhile.

    A commit cannot be taken back once it has begun. Its caller must learn the ids rather than send the crops again.
    """
    future = asyncio.wrap_future(submitted)
    while True:
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if future.cancelled():
                raise
