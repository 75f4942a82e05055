"""The client for asyncio: the methods of `Client` as coroutines, and lists as async iterators."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from itertools import count
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

import httpx

from pan_reid import endpoints
from pan_reid.endpoints import Crop, VectorCrop
from pan_reid.enrol_stream import enrolments
from pan_reid.errors import api_error, transfer_errors
from pan_reid.request import (
    LONGEST_IMPORT,
    ApiRequest,
    PagedRequest,
    RetryPolicy,
    authorization,
    gallery_path,
    service_url,
)
from pan_reid.schemas import (
    AuditRecord,
    Comparison,
    Enrolled,
    EnrolResult,
    Entry,
    ErasureReceipt,
    Explanations,
    Gallery,
    IndexKind,
    Model,
    Person,
    ReEmbedding,
    SearchAnswer,
)
from pan_reid.schemas.export_file import ExportReader
from pan_reid.vectors import Vectors

T = TypeVar("T")

_CHUNK = 2**16  # bytes


class AsyncClient:
    """The methods of `Client` for asyncio. One event loop may run any number of calls at a time."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 8,
    ) -> None:
        self._http = httpx.AsyncClient(base_url=service_url(url), timeout=timeout, headers=authorization(api_key))
        self._retries = RetryPolicy(retries)

    async def __aenter__(self) -> Self:
        """Return the client. The end of the block closes its connections."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def model(self) -> Model:
        """The loaded model."""
        return await self._send(endpoints.model())

    async def embed(self, images: Sequence[bytes], boxes: Sequence[Sequence[float]] | None = None) -> Vectors:
        """(images, dim) unit vectors; or (boxes, dim) of the boxes (x, y, width, height in pixels) in one frame.

        Raises ApiError if any image or box cannot be used.
        """
        return await self._send(endpoints.embed(images, boxes))

    async def explain(self, images: Sequence[bytes], boxes: Sequence[Sequence[float]] | None = None) -> Explanations:
        """Part masks and compatibility maps of a few images, or of boxes in one frame."""
        return await self._send(endpoints.explain(images, boxes))

    async def compare(self, a: Sequence[bytes], b: Sequence[bytes], **options: Any) -> Comparison:
        """Compare two sets of images, each of one person. Options: members of `pan_reid.schemas.DecisionOptions`."""
        return await self._send(endpoints.compare(a, b, **options))

    async def galleries(self) -> list[Gallery]:
        """All galleries, sorted by name."""
        return await self._send(endpoints.galleries())

    async def gallery(self, name: str) -> Gallery:
        """A gallery. Raises ApiError with status 404 if it does not exist."""
        return await self._send(endpoints.gallery(name))

    async def create_gallery(
        self,
        name: str,
        purpose: str = "",
        *,
        index: IndexKind = "auto",
        retention_days: float | None = None,
        keep_crops: bool = False,
    ) -> Gallery:
        """Create an empty gallery. Raises ApiError with status 409 if the name exists."""
        return await self._send(
            endpoints.create_gallery(name, purpose, index=index, retention_days=retention_days, keep_crops=keep_crops)
        )

    async def update_gallery(self, name: str, **changes: Any) -> Gallery:
        """Change the given members of `pan_reid.schemas.GalleryUpdate`."""
        return await self._send(endpoints.update_gallery(name, **changes))

    async def delete_gallery(self, name: str) -> ErasureReceipt:
        """Erase a gallery with all its entries."""
        return await self._send(endpoints.delete_gallery(name))

    async def purge(self, gallery: str) -> ErasureReceipt:
        """Erase the expired entries now. Returns when they are erased."""
        return await self._send(endpoints.purge(gallery))

    async def re_embed(self, gallery: str, *, drop_without_crop: bool = False) -> ReEmbedding:
        """Start to re-embed the stored images of a gallery with the loaded model, in the background.

        Entries without a stored image: ApiError with status 409, or erased at the end with `drop_without_crop`.
        """
        return await self._send(endpoints.re_embed(gallery, drop_without_crop=drop_without_crop))

    async def re_embedding(self, gallery: str) -> ReEmbedding:
        """Progress of the re-embedding of a gallery."""
        return await self._send(endpoints.re_embedding(gallery))

    async def enrol(self, gallery: str, crops: Sequence[Crop], *, key: str | None = None) -> Enrolled:
        """Enrol crops. The response has a result for each crop. A retry does not enrol a crop twice.

        `key` is the idempotency key: for seven days, the service repeats its first response to a request with this
        key, and does not enrol again. The default is a new key for each call.
        """
        return await self._send(endpoints.enrol(gallery, crops, key=key))

    def entries(self, gallery: str, **filters: str) -> AsyncIterator[Entry]:
        """All entries in the order of enrolment. Filters: person_id, camera_id."""
        return self._pages(endpoints.entries(gallery, **filters))

    async def entry(self, gallery: str, entry_id: int) -> Entry:
        """An entry. Raises ApiError with status 404 if it does not exist."""
        return await self._send(endpoints.entry(gallery, entry_id))

    async def update_entry(self, gallery: str, entry_id: int, **changes: Any) -> Entry:
        """Change the given members of `pan_reid.schemas.EntryUpdate`; None clears a member."""
        return await self._send(endpoints.update_entry(gallery, entry_id, **changes))

    async def delete_entry(self, gallery: str, entry_id: int) -> None:
        """Delete an entry and its vector."""
        return await self._send(endpoints.delete_entry(gallery, entry_id))

    async def image(self, gallery: str, entry_id: int) -> bytes:
        """The stored image of an entry, JPEG. Raises ApiError with status 404 if no image is stored."""
        return await self._send(endpoints.image(gallery, entry_id))

    def persons(self, gallery: str) -> AsyncIterator[Person]:
        """All persons, sorted by id."""
        return self._pages(endpoints.persons(gallery))

    async def erase_person(self, gallery: str, person_id: str) -> ErasureReceipt:
        """Erase all entries of a person in this gallery."""
        return await self._send(endpoints.erase_person(gallery, person_id))

    def audit(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        caller: str | None = None,
        gallery: str | None = None,
        action: str | None = None,
    ) -> AsyncIterator[AuditRecord]:
        """The records of the audit log that pass all filters, newest first. Needs scope admin.

        Times have a time zone. `caller` is the name of a key, or the address of a caller without one.
        """
        return self._pages(endpoints.audit(since=since, until=until, caller=caller, gallery=gallery, action=action))

    async def search(self, gallery: str, *images: bytes, **options: Any) -> SearchAnswer:
        """Search by one or several images of one person. Options: the members of `pan_reid.schemas.SearchOptions`."""
        return await self._send(endpoints.search(gallery, *images, **options))

    async def search_vector(self, gallery: str, vector: Vectors, **options: Any) -> SearchAnswer:
        """Search by a (dim,) vector of the gallery's model, or by (n, dim) vectors of one person."""
        return await self._send(endpoints.search_vector(gallery, vector, **options))

    async def search_entry(self, gallery: str, *entry_ids: int, **options: Any) -> SearchAnswer:
        """Search by one or several entries of one person. The hits exclude these entries."""
        return await self._send(endpoints.search_entry(gallery, *entry_ids, **options))

    async def enrol_stream(self, gallery: str, crops: Iterable[Crop | VectorCrop]) -> AsyncIterator[EnrolResult]:
        """Enrol any number of crops. Yields a result for each, in order, when it is on disk. No crop is enrolled twice.

        Raises ClientError if the remaining crops cannot be enrolled.
        """
        for call in enrolments(gallery, crops):
            results, error = await self._send(call)
            for result in results:
                yield result
            if error is not None:
                raise error

    async def export_gallery(self, gallery: str, write: Callable[[bytes], object]) -> None:
        """Export a gallery: pass the file to `write` in chunks, and verify its checksum. Raises ClientError."""
        reader = ExportReader()
        with transfer_errors(f"the export of {gallery}", "export it again"):
            async with self._http.stream("POST", gallery_path(gallery, "export")) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise api_error(answer)
                async for chunk in answer.aiter_bytes():
                    write(chunk)
                    for _ in reader.feed(chunk):
                        pass
                reader.verify_complete()

    async def import_gallery(self, gallery: str, file: BinaryIO) -> Gallery:
        """Create a gallery from an exported file. Raises ClientError, and then the gallery does not exist."""
        headers = {"Content-Type": "application/octet-stream"}
        with transfer_errors(f"the import into {gallery}", "check whether the gallery exists"):
            answer = await self._http.post(
                gallery_path(gallery, "import"), content=_chunks(file), headers=headers, timeout=LONGEST_IMPORT
            )
        if not answer.is_success:
            raise api_error(answer)
        return Gallery.model_validate_json(answer.content)

    async def _send(self, call: ApiRequest[T]) -> T:
        for attempt in count():
            try:
                answer = await self._http.send(call.request(self._http))
            except httpx.TransportError as error:
                wait = self._retries.after_failure(attempt, call, error)
            else:
                if answer.is_success:
                    return call.read(answer.content)
                wait = self._retries.after_problem(attempt, answer)
            await asyncio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    async def _pages(self, listing: PagedRequest[T]) -> AsyncIterator[T]:
        cursor: str | None = None
        while True:
            items, cursor = await self._send(listing.page(cursor))
            for item in items:
                yield item
            if cursor is None:
                return


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, _CHUNK):
        yield chunk
