"""POST .../entries/stream: enrolment of any number of crops. Each line gets a result once its entry is on disk.

Three tasks: one reads the body, one enrols the lines that have arrived in one commit, one sends the results. A client
may send everything before it reads a result.
"""

import asyncio
from collections.abc import Sequence

import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from bundle import PanError
from service.api.auth import EnrolCaller
from service.api.deadline import Deadline
from service.api.dependencies import GalleryPath, KeyHeader, UseCasesDep
from service.api.enrol_results import StreamResult, Summary, result_lines
from service.api.openapi import EMBEDDING_PROBLEMS, enrol_lines, problems
from service.api.parsing.enrolment import parse_crop_or_error
from service.api.parsing.json_text import VALUES_PER_ENTRY, parse_json
from service.api.parsing.line_buffer import BodyLines, Line
from service.container import UseCases
from service.core.errors import BodyTooLarge, ClientDisconnected, InvalidRequest, Overloaded, UnsupportedBody
from service.galleries.commands import Crop, EnrolCrops, IdempotencyKey, OpenStream
from service.galleries.enrolment_results import Batch, digest_lines
from service.galleries.results import EnrolmentTarget

router = APIRouter(prefix="/v1/galleries/{gallery}/entries", tags=["entries"])

_TYPE = "application/x-ndjson"
_MAX_LINES = 1024  # of a commit
_MAX_IMAGES = 64  # of a commit
_METADATA_BYTES = 2**16  # of a line, besides its image
_MAX_UNSENT = 10_000  # results that wait for a client that does not read; a range of entries is one result
_RETRY_DELAY = 0.25  # seconds between attempts to embed while the service is overloaded


@router.post(
    "/stream",
    summary="Enrol a stream of crops",
    openapi_extra=enrol_lines(),
    response_class=Response,
    responses={
        200: {
            "description": "A line for each line of the request, in order, once its entry is on disk: `EnrolResult`. "
            "Then a last line: `EnrolSummary`. A response without the last line was cut off.",
            "content": {_TYPE: {"schema": {"type": "string"}}},
        },
        **problems(404, 409, 507, *EMBEDDING_PROBLEMS),
    },
)
async def enrol_stream(
    gallery: GalleryPath,
    request: Request,
    use_cases: UseCasesDep,
    caller: EnrolCaller,
    idempotency_key: KeyHeader = None,
) -> Response:
    """Send any number of lines. Each is a JSON object as in the list `entries`: an `image` (base64) or a `vector`, with
    metadata. A line that cannot be used fails alone. If the service is overloaded, the stream waits. Entries whose
    result was sent stay enrolled if the stream breaks off. To resume, send the stream again from its beginning with the
    same Idempotency-Key: known lines get their first results, and new lines are enrolled.
    """
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != _TYPE:
        raise UnsupportedBody(f"send lines of JSON as {_TYPE}")
    target = await use_cases.enrolment.open_stream(OpenStream(gallery))
    return _StreamResponse(use_cases, caller, target, idempotency_key)


class _StreamResponse(Response):
    """Enrols while it is sent. All lines go to one gallery, even if another one gets its name meanwhile."""

    def __init__(self, use_cases: UseCases, caller: str, target: EnrolmentTarget, key: str | None) -> None:
        super().__init__(media_type=_TYPE)
        self._use_cases = use_cases
        self._caller = caller
        self._target = target
        self._key = key
        self._max_line = use_cases.settings.images.max_bytes * 4 // 3 + _METADATA_BYTES
        self._has_started = False
        self._results: asyncio.Queue[StreamResult] = asyncio.Queue(_MAX_UNSENT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises an error that occurs before the first result is sent. Later errors are sent in the last line."""
        share = scope["share"]
        self._max_line = min(self._max_line, share.budget.max_line)
        lines = BodyLines(share, self._max_line, self._use_cases.settings.request_timeout, is_open_ended=True)
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(lines.read(receive))
                tasks.create_task(self._work(lines))
                await self._send(send)
                reading.cancel()
        except ExceptionGroup as errors:
            if not (self._has_started and isinstance(errors.exceptions[0], ClientDisconnected)):
                raise errors.exceptions[0] from None

    async def _send(self, send: Send) -> None:
        is_last = False
        while not is_last:
            results = [await self._results.get()]
            while not self._results.empty():
                results.append(self._results.get_nowait())
            if isinstance(last := results[-1], Summary):
                if last.error is not None and not self._has_started and len(results) == 1:
                    raise last.error
                is_last = True
            if not self._has_started:
                headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                self._has_started = True
            text = b"".join(map(result_lines, results))
            await send({"type": "http.response.body", "body": text, "more_body": not is_last})

    async def _work(self, lines: BodyLines) -> None:
        summary = Summary()
        try:
            await self._enrol_all(lines, summary)
        except PanError as error:
            summary.error = error
        await self._results.put(summary)

    async def _enrol_all(self, lines: BodyLines, summary: Summary) -> None:
        """Enrol line after line. Lines that were enrolled under this key before get their first results."""
        batch, place = Batch(), 0
        while taken := await lines.take(_MAX_LINES):
            if place == batch.count:
                batch, place = await self._enrol(summary.lines, taken), 0
            current = taken[: batch.count - place]
            lines.unread(taken[len(current) :])
            same = batch.count_same(place, current)
            for outcome in batch.outcomes(place, place + same, summary.lines):
                summary.add(outcome)
                await self._results.put(outcome)
            lines.done(current)
            if same < len(current):
                raise InvalidRequest(
                    f"line {summary.lines + 1} differs from the line that was sent with this Idempotency-Key before; "
                    "use a new key for each stream"
                )
            place += same

    async def _enrol(self, index: int, lines: Sequence[Line]) -> Batch:
        """The results of lines from position `index` on: as many lines as one commit has."""
        crops = await asyncio.to_thread(self._parse_batch, lines)
        key, digests = None, b""
        if self._key is not None:
            key = IdempotencyKey(f"{self._key}\n{index}", "stream")
            digests = await asyncio.to_thread(digest_lines, lines[: len(crops)])
        target = self._target
        command = EnrolCrops(
            self._caller,
            target.gallery,
            crops,
            key=key,
            gallery_id=target.gallery_id,
            is_stream=True,
            digests=digests,
        )
        while True:
            deadline = Deadline(self._use_cases.settings.request_timeout)  # each commit has its own
            try:
                async with deadline.enforced(f"lines were not enrolled within {deadline.seconds:g} s; send them again"):
                    return await self._use_cases.enrolment.enrol(command)
            except Overloaded:  # a client cannot retry the middle of a stream
                await asyncio.sleep(_RETRY_DELAY)

    def _parse_batch(self, lines: Sequence[Line]) -> tuple[Crop | PanError, ...]:
        """The crops of a commit. Its images are limited, because results are sent once all of them are embedded."""
        images_left = min(_MAX_IMAGES, self._use_cases.settings.max_images)
        crops: list[Crop | PanError] = []
        for line in lines:
            crop = self._parse(line)
            crops.append(crop)
            images_left -= isinstance(crop, Crop) and not isinstance(crop.source, np.ndarray)
            if not images_left:
                break
        return tuple(crops)

    def _parse(self, line: Line) -> Crop | PanError:
        if line is None:
            return BodyTooLarge(f"the line has more than {self._max_line:,} bytes")
        try:
            item = parse_json(line, self._target.dim + VALUES_PER_ENTRY, "the line")
        except PanError as error:
            return error
        return parse_crop_or_error(item)
