"""POST .../entries/stream: enrolment without an end. Lines come in, and a line goes out for each that is on disk.

Three tasks: one reads the body, one enrols what has arrived meanwhile in one commit, one sends the results. None waits
for another longer than it must: a client that sends everything before it reads an answer gets through as well.
"""

import asyncio
import hashlib
from collections.abc import Sequence

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from bundle import ImageError, PanError
from service.answers import item_error
from service.api.deps import EMBEDDING_PROBLEMS, EnrolCaller, GalleryPath, ServiceDep, parse, problems
from service.api.docs import enrol_lines
from service.api.enrol import KeyHeader, embed_crops, new_entry, pop_crop
from service.body import Image
from service.engine import Vectors
from service.entries import IdempotencyKey
from service.errors import BodyTooLarge, ClientGone, InvalidRequest, Overloaded, UnsupportedBody
from service.ndjson import Line, Lines
from service.purger import refuse_expired
from service.records import NewEntry
from service.runtime import Service
from service.schemas import EntryInfo
from service.streamed import Batch, End, Result

router = APIRouter(prefix="/v1/galleries/{gallery}/entries", tags=["entries"])

_TYPE = "application/x-ndjson"
_LINES = 1024  # of a commit
_PICTURES = 64  # of a commit
_WAITING = 8 * 2**20  # bytes of lines that arrived and are not yet worked on
_BESIDES = 2**16  # bytes of a line besides its image
_UNSENT = 10_000  # results that wait for a client that does not read; a run of entries is one
_PATIENCE = 0.25  # seconds until a full queue is asked again


@router.post(
    "/stream",
    summary="Enrol a stream of crops",
    openapi_extra=enrol_lines(),
    response_class=Response,
    responses={
        200: {
            "description": "A line for each line, in order, once its entry is on disk: `EnrolResult`. Then a last one: "
            "`EnrolEnd`. Without that last line the stream broke off.",
            "content": {_TYPE: {"schema": {"type": "string"}}},
        },
        **problems(404, 409, 507, *EMBEDDING_PROBLEMS),
    },
)
async def enrol_stream(
    gallery: GalleryPath, request: Request, service: ServiceDep, caller: EnrolCaller, idempotency_key: KeyHeader = None
) -> Response:
    """Any number of lines, each a JSON object as in the list `entries`: an `image` (base64) or a `vector`, and what is
    known of it. A line that cannot be used fails alone. A full queue is waited for. What a result was sent for stays,
    also where the stream breaks off; sent again from its beginning with the same Idempotency-Key, it is answered as
    before as far as it came, and goes on from there.
    """
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != _TYPE:
        raise UnsupportedBody(f"send lines of JSON as {_TYPE}")
    service.galleries.require_current(service.galleries.find(gallery).row)
    return _Stream(service, caller, gallery, idempotency_key)


_Parsed = tuple[NewEntry, Image | Vectors] | PanError
_Outcome = tuple[NewEntry, Vectors, bytes | None] | PanError


class _Stream(Response):
    """The answer, which works while it is sent."""

    def __init__(self, service: Service, caller: str, gallery: str, key: str | None) -> None:
        super().__init__(media_type=_TYPE)
        self._service = service
        self._caller = caller
        self._gallery = gallery
        self._key = key
        self._longest = service.settings.images.max_bytes * 4 // 3 + _BESIDES
        self._dim = service.bundle.manifest.output.dim
        self._begun = False
        self._results: asyncio.Queue[Result] = asyncio.Queue(_UNSENT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises the first error as long as no result was sent; afterwards it is told in the last line."""
        scope["patient"] = True
        lines = Lines(self._longest, _WAITING, scope["let_go"])
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(_read(receive, lines))
                tasks.create_task(self._work(lines))
                await self._send(send)
                reading.cancel()
        except ExceptionGroup as errors:
            if not (self._begun and isinstance(errors.exceptions[0], ClientGone)):
                raise errors.exceptions[0] from None

    async def _send(self, send: Send) -> None:
        end = False
        while not end:
            results = [await self._results.get()]
            while not self._results.empty():
                results.append(self._results.get_nowait())
            if isinstance(last := results[-1], End):
                if last.error is not None and not self._begun and len(results) == 1:
                    raise last.error
                end = True
            if not self._begun:
                headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                self._begun = True
            text = b"".join(result.text() for result in results)
            await send({"type": "http.response.body", "body": text, "more_body": not end})

    async def _work(self, lines: Lines) -> None:
        end = End()
        try:
            while some := await lines.some(_LINES):
                start = end.enrolled + end.failed
                batch = await self._batch(start, some, lines)
                end.failed += len(batch.errors)
                end.enrolled += batch.lines - len(batch.errors)
                for result in batch.results(start):
                    await self._results.put(result)
        except PanError as error:
            end.error = error
        await self._results.put(end)

    async def _batch(self, start: int, some: list[Line], lines: Lines) -> Batch:
        """Enrol lines, or find what became of them when they came before under this key; gives back what is left."""
        key = None if self._key is None else IdempotencyKey(f"{self._key}\n{start}", "stream")
        answered = None if key is None else await self._service.entries.answered(self._gallery, key)
        batch = Batch.loads(answered.answer if answered else await self._enrol(some, key))
        while len(some) < batch.lines and (more := await lines.some(batch.lines - len(some))):
            some += more
        await lines.give_back(some[batch.lines :])
        if key is not None and _digest(some[: batch.lines]) != batch.digest:
            raise InvalidRequest(
                f"line {start + 1} and those after it are not what came with this Idempotency-Key before; take a new "
                "key for each stream"
            )
        return batch

    async def _enrol(self, lines: list[Line], key: IdempotencyKey | None) -> bytes:
        """Enrol as many of the lines as make a batch; or what another stream with this key has just made of them."""
        parsed = await asyncio.to_thread(self._parsed, lines)
        outcomes = await self._embedded(parsed)
        good = [outcome for outcome in outcomes if not isinstance(outcome, PanError)]
        entries, pictures = [entry for entry, _, _ in good], [picture for _, _, picture in good]
        vectors = np.array([vector for _, vector, _ in good], np.float32).reshape(-1, self._dim)
        errors = {place: item_error(one) for place, one in enumerate(outcomes) if isinstance(one, PanError)}
        digest = "" if key is None else _digest(lines[: len(outcomes)])

        def answer(ids: list[int]) -> tuple[int, bytes]:
            return 200, Batch(len(outcomes), digest, ids[0] if ids else 0, errors).dumps()

        if key is None and not entries:
            return answer([])[1]
        answered = await self._service.entries.enrol(
            self._caller, self._gallery, entries, vectors, answer, key, pictures
        )
        return answered.answer

    def _parsed(self, lines: Sequence[Line]) -> list[_Parsed]:
        """A batch ends with so many pictures, as a client is told of none before all are embedded."""
        most = min(_PICTURES, self._service.settings.max_images)
        parsed: list[_Parsed] = []
        for line in lines:
            try:
                entry, crop = self._parse(line)
            except PanError as error:
                parsed.append(error)
            else:
                parsed.append((entry, crop))
                most -= not isinstance(crop, np.ndarray)
            if not most:
                break
        return parsed

    def _parse(self, line: Line) -> tuple[NewEntry, Image | Vectors]:
        if line is None:
            raise BodyTooLarge(f"the line has more than {self._longest:,} bytes")
        try:
            item = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"the line is not JSON: {error}") from None
        if not isinstance(item, dict):
            raise InvalidRequest(f"the line is a JSON {type(item).__name__}; an object is needed")
        crop = pop_crop(item, self._dim)
        entry = new_entry(parse(EntryInfo, item))
        refuse_expired([entry], self._service.galleries.find(self._gallery), self._service.galleries.clock())
        return entry, crop

    async def _embedded(self, parsed: Sequence[_Parsed]) -> list[_Outcome]:
        images = [one[1] for one in parsed if not isinstance(one, PanError) and not isinstance(one[1], np.ndarray)]
        embedded = iter(await self._embed(images) if images else [])
        outcomes: list[_Outcome] = []
        for one in parsed:
            if isinstance(one, PanError):
                outcomes.append(one)
            elif isinstance(one[1], np.ndarray):
                outcomes.append((one[0], one[1], None))
            else:
                crop = next(embedded)
                outcomes.append(crop if isinstance(crop, ImageError) else (one[0], *crop))
        return outcomes

    async def _embed(self, images: list[Image]) -> Sequence[tuple[Vectors, bytes | None] | ImageError]:
        """Waits its turn: of the middle of a stream nobody can be told to come back later."""
        keep = self._service.galleries.find(self._gallery).row.keep_crops
        while True:
            try:
                return await embed_crops(self._service, images, None, keep)
            except Overloaded:
                await asyncio.sleep(_PATIENCE)


async def _read(receive: Receive, lines: Lines) -> None:
    while True:
        try:
            message = await receive()
        except Overloaded as error:
            await lines.end(error)
            return
        if message["type"] == "http.disconnect":
            raise ClientGone("the client closed the connection")
        await lines.feed(message.get("body", b""))
        if not message.get("more_body", False):
            await lines.end()
            return


def _digest(lines: Sequence[Line]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(b"%d\n" % (-1 if line is None else len(line)))
        digest.update(line or b"")
    return digest.hexdigest()
