"""The client for asyncio: the same calls, to await; and lists to go through with `async for`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from itertools import count
from types import TracebackType
from typing import Any, BinaryIO, Concatenate, ParamSpec, Self, TypeVar

import httpx

from pan_reid import endpoints
from pan_reid.endpoints import Crop, VectorCrop
from pan_reid.enrol_stream import enrolments
from pan_reid.errors import api_error, transfer_errors
from pan_reid.method import like
from pan_reid.request import (
    LONGEST_IMPORT,
    ApiRequest,
    PagedRequest,
    RetryPolicy,
    authorization,
    gallery_path,
    service_url,
)
from pan_reid.schemas import EnrolResult, Gallery
from pan_reid.schemas.export_file import ExportReader

P = ParamSpec("P")
T = TypeVar("T")

_CHUNK = 2**16  # bytes


def _answered(describe: Callable[P, ApiRequest[T]]) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, T]]:
    @like(describe)
    async def method(self: "AsyncClient", /, *arguments: P.args, **options: P.kwargs) -> T:
        return await self._answer(describe(*arguments, **options))

    return method


def _listed(describe: Callable[P, PagedRequest[T]]) -> Callable[Concatenate["AsyncClient", P], AsyncIterator[T]]:
    @like(describe, AsyncIterator)
    def method(self: "AsyncClient", /, *arguments: P.args, **options: P.kwargs) -> AsyncIterator[T]:
        return self._items(describe(*arguments, **options))

    return method


class AsyncClient:
    """`Client`, for one event loop: any number of calls may be under way at a time."""

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
        """The client itself; leaving closes its connections."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    model = _answered(endpoints.model)
    embed = _answered(endpoints.embed)
    explain = _answered(endpoints.explain)
    compare = _answered(endpoints.compare)
    galleries = _answered(endpoints.galleries)
    gallery = _answered(endpoints.gallery)
    create_gallery = _answered(endpoints.create_gallery)
    update_gallery = _answered(endpoints.update_gallery)
    delete_gallery = _answered(endpoints.delete_gallery)
    purge = _answered(endpoints.purge)
    re_embed = _answered(endpoints.re_embed)
    re_embedding = _answered(endpoints.re_embedding)
    enrol = _answered(endpoints.enrol)
    entries = _listed(endpoints.entries)
    entry = _answered(endpoints.entry)
    update_entry = _answered(endpoints.update_entry)
    delete_entry = _answered(endpoints.delete_entry)
    image = _answered(endpoints.image)
    persons = _listed(endpoints.persons)
    erase_person = _answered(endpoints.erase_person)
    search = _answered(endpoints.search)
    search_vector = _answered(endpoints.search_vector)
    search_entry = _answered(endpoints.search_entry)

    async def enrol_stream(self, gallery: str, crops: Iterable[Crop | VectorCrop]) -> AsyncIterator[EnrolResult]:
        """Enrol any number of crops; a result for each, in order, once it is on disk. None is enrolled twice.

        Raises ClientError where the rest cannot be enrolled.
        """
        for call in enrolments(gallery, crops):
            results, error = await self._answer(call)
            for result in results:
                yield result
            if error is not None:
                raise error

    async def export_gallery(self, gallery: str, write: Callable[[bytes], object]) -> None:
        """Write the file of a gallery, chunk by chunk, and check that it is whole. Raises ClientError."""
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
        """Make a gallery of an exported file. Raises ClientError, and then there is no such gallery."""
        headers = {"Content-Type": "application/octet-stream"}
        with transfer_errors(f"the import into {gallery}", "see whether the gallery is there"):
            answer = await self._http.post(
                gallery_path(gallery, "import"), content=_chunks(file), headers=headers, timeout=LONGEST_IMPORT
            )
        if not answer.is_success:
            raise api_error(answer)
        return Gallery.model_validate_json(answer.content)

    async def _answer(self, call: ApiRequest[T]) -> T:
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

    async def _items(self, listing: PagedRequest[T]) -> AsyncIterator[T]:
        cursor: str | None = None
        while True:
            items, cursor = await self._answer(listing.page(cursor))
            for item in items:
                yield item
            if cursor is None:
                return


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, _CHUNK):
        yield chunk
