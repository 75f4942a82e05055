"""The client for asyncio: the same calls, to await; and lists to go through with `async for`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from itertools import count
from types import TracebackType
from typing import Any, BinaryIO, Concatenate, ParamSpec, Self, TypeVar

import httpx

from service.client import calls
from service.client.call import LONGEST_IMPORT, Call, Listing, Retries, authorization, gallery_path, service_url
from service.client.calls import Crop, Embedded
from service.client.errors import api_error, may_break_off
from service.client.method import like
from service.client.stream import enrolments
from service.lines import Reader
from service.schemas import EnrolResult, Gallery

P = ParamSpec("P")
T = TypeVar("T")

_CHUNK = 2**16  # bytes


def _answered(describe: Callable[P, Call[T]]) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, T]]:
    @like(describe)
    async def method(self: "AsyncClient", /, *arguments: P.args, **options: P.kwargs) -> T:
        return await self._answer(describe(*arguments, **options))

    return method


def _listed(describe: Callable[P, Listing[T]]) -> Callable[Concatenate["AsyncClient", P], AsyncIterator[T]]:
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
        self._retries = Retries(retries)

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

    model = _answered(calls.model)
    embed = _answered(calls.embed)
    explain = _answered(calls.explain)
    compare = _answered(calls.compare)
    galleries = _answered(calls.galleries)
    gallery = _answered(calls.gallery)
    create_gallery = _answered(calls.create_gallery)
    update_gallery = _answered(calls.update_gallery)
    delete_gallery = _answered(calls.delete_gallery)
    purge = _answered(calls.purge)
    re_embed = _answered(calls.re_embed)
    re_embedding = _answered(calls.re_embedding)
    enrol = _answered(calls.enrol)
    entries = _listed(calls.entries)
    entry = _answered(calls.entry)
    update_entry = _answered(calls.update_entry)
    delete_entry = _answered(calls.delete_entry)
    image = _answered(calls.image)
    persons = _listed(calls.persons)
    erase_person = _answered(calls.erase_person)
    search = _answered(calls.search)
    search_vector = _answered(calls.search_vector)
    search_entry = _answered(calls.search_entry)

    async def enrol_stream(self, gallery: str, crops: Iterable[Crop | Embedded]) -> AsyncIterator[EnrolResult]:
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
        reader = Reader()
        with may_break_off(f"the export of {gallery}", "export it again"):
            async with self._http.stream("POST", gallery_path(gallery, "export")) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise api_error(answer)
                async for chunk in answer.aiter_bytes():
                    write(chunk)
                    for _ in reader.feed(chunk):
                        pass
                reader.finish()

    async def import_gallery(self, gallery: str, file: BinaryIO) -> Gallery:
        """Make a gallery of an exported file. Raises ClientError, and then there is no such gallery."""
        headers = {"Content-Type": "application/octet-stream"}
        with may_break_off(f"the import into {gallery}", "see whether the gallery is there"):
            answer = await self._http.post(
                gallery_path(gallery, "import"), content=_chunks(file), headers=headers, timeout=LONGEST_IMPORT
            )
        if not answer.is_success:
            raise api_error(answer)
        return Gallery.model_validate_json(answer.content)

    async def _answer(self, call: Call[T]) -> T:
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

    async def _items(self, listing: Listing[T]) -> AsyncIterator[T]:
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
