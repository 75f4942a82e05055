"""POST .../entries/stream: enrolment without an end. Lines come in, and a line goes out for each that is on disk.

Three tasks: one reads the body, one enrols what has arrived meanwhile in one commit, one sends the results. None waits
for another longer than it must: a client that sends everything before it reads an answer gets through as well.
"""

import asyncio
from collections.abc import Sequence

import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from bundle import PanError
from service.api.dependencies import EMBEDDING_PROBLEMS, EnrolCaller, GalleryPath, ServiceDep, problems
from service.api.enrol_results import Result, Summary, result_text
from service.api.openapi import enrol_lines
from service.api.parsing.json_text import VALUES_PER_ENTRY, parse_json
from service.api.parsing.line_buffer import BodyLines, Line
from service.api.routes.enrol import KeyHeader, attempt, parse_crop
from service.container import Container
from service.core.errors import BodyTooLarge, ClientDisconnected, InvalidRequest, Overloaded, UnsupportedBody
from service.galleries.catalog import LoadedGallery
from service.galleries.enrolment import Crop, Outcome, Parsed
from service.galleries.enrolment_results import Batch, digest_lines
from service.galleries.entries import IdempotencyKey

router = APIRouter(prefix="/v1/galleries/{gallery}/entries", tags=["entries"])

_TYPE = "application/x-ndjson"
_LINES = 1024  # of a commit
_PICTURES = 64  # of a commit
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
            "`EnrolSummary`. Without that last line the stream broke off.",
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
    held = service.galleries.find(gallery)
    service.galleries.require_current(held.row)
    return _Stream(service, caller, held, idempotency_key)


class _Stream(Response):
    """The answer, which works while it is sent. It holds to the gallery that it began with: one of the same name that
    is made meanwhile is another.
    """

    def __init__(self, service: Container, caller: str, held: LoadedGallery, key: str | None) -> None:
        super().__init__(media_type=_TYPE)
        self._service = service
        self._caller = caller
        self._held = held
        self._key = key
        self._longest = service.settings.images.max_bytes * 4 // 3 + _BESIDES
        self._begun = False
        self._results: asyncio.Queue[Result] = asyncio.Queue(_UNSENT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises the first error as long as no result was sent; afterwards it is told in the last line."""
        share = scope["share"]
        self._longest = min(self._longest, share.budget.longest_line)
        lines = BodyLines(share, self._longest, self._service.settings.request_timeout, open_end=True)
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(lines.read(receive))
                tasks.create_task(self._work(lines))
                await self._send(send)
                reading.cancel()
        except ExceptionGroup as errors:
            if not (self._begun and isinstance(errors.exceptions[0], ClientDisconnected)):
                raise errors.exceptions[0] from None

    async def _send(self, send: Send) -> None:
        end = False
        while not end:
            results = [await self._results.get()]
            while not self._results.empty():
                results.append(self._results.get_nowait())
            if isinstance(last := results[-1], Summary):
                if last.error is not None and not self._begun and len(results) == 1:
                    raise last.error
                end = True
            if not self._begun:
                headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                self._begun = True
            text = b"".join(map(result_text, results))
            await send({"type": "http.response.body", "body": text, "more_body": not end})

    async def _work(self, lines: BodyLines) -> None:
        summary = Summary()
        try:
            await self._enrol_all(lines, summary)
        except PanError as error:
            summary.error = error
        await self._results.put(summary)

    async def _enrol_all(self, lines: BodyLines, summary: Summary) -> None:
        """Enrol line after line; those that came before under this key are answered as far as they come again."""
        batch, place = Batch(), 0
        while taken := await lines.take(_LINES):
            if place == batch.count:
                batch, place = await self._batch(summary.lines, taken), 0
            now = taken[: batch.count - place]
            lines.unread(taken[len(now) :])
            same = batch.count_same(place, now)
            for outcome in batch.outcomes(place, place + same, summary.lines):
                summary.add(outcome)
                await self._results.put(outcome)
            lines.done(now)
            if same < len(now):
                raise InvalidRequest(
                    f"line {summary.lines + 1} is not what came with this Idempotency-Key before; take a new key for "
                    "each stream"
                )
            place += same

    async def _batch(self, index: int, lines: list[Line]) -> Batch:
        """What became of the lines from `index` on when they came before under this key; else these are enrolled, as
        many as make a batch.
        """
        key = None if self._key is None else IdempotencyKey(f"{self._key}\n{index}", "stream")
        if key is not None and (earlier := await self._service.entries.answered(self._held, key)):
            return earlier
        parsed = await asyncio.to_thread(self._parsed, lines)
        outcomes = await self._embedded(parsed)
        digests = b"" if key is None else await asyncio.to_thread(digest_lines, lines[: len(outcomes)])
        return await self._service.enrolment.commit(self._caller, self._held, outcomes, key, digests)

    def _parsed(self, lines: Sequence[Line]) -> list[Parsed]:
        """A batch ends with so many pictures, as a client is told of none before all are embedded."""
        most = min(_PICTURES, self._service.settings.max_images)
        parsed: list[Parsed] = []
        for line in lines:
            crop = attempt(self._parse, line)
            parsed.append(crop)
            most -= isinstance(crop, Crop) and not isinstance(crop.source, np.ndarray)
            if not most:
                break
        return parsed

    def _parse(self, line: Line) -> Crop:
        if line is None:
            raise BodyTooLarge(f"the line has more than {self._longest:,} bytes")
        item = parse_json(line, self._held.row.dim + VALUES_PER_ENTRY, "the line")
        return parse_crop(item, self._held, self._service)

    async def _embedded(self, parsed: Sequence[Parsed]) -> list[Outcome]:
        """Waits its turn: of the middle of a stream nobody can be told to come back later."""
        while True:
            try:
                return await self._service.enrolment.embed(self._held, parsed)
            except Overloaded:
                await asyncio.sleep(_PATIENCE)
