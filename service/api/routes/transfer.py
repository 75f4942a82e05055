"""A gallery as one file: out of this service, and into another one of the same model."""

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from bundle import ImageError
from pan_reid.errors import InvalidExport
from pan_reid.schemas import ExportedEntry, ExportedGallery, Gallery
from pan_reid.schemas.export_file import FORMAT, LONGEST, ExportReader, ExportWriter
from service.api.dependencies import AdminCaller, ExportCaller, GalleryPath, ServiceDep, parse, problems
from service.api.mapping import microseconds, moment
from service.api.parsing.images import image_from_base64, unit_vector
from service.api.parsing.json_text import VALUES_PER_ENTRY, parse_json
from service.api.parsing.line_buffer import BodyLines
from service.api.responses import JsonResponse
from service.api.routes.galleries import gallery_view, retention_of
from service.container import Container
from service.core.clock import now
from service.core.errors import BodyTooLarge, InvalidRequest, ModelMismatch, UnsupportedBody
from service.core.models import EntryRow
from service.core.types import Vectors
from service.galleries.transfer import BATCH, BATCH_BYTES, WriteBatch
from service.inference.embedder import Embedder
from service.storage.entries import ExportedRow
from service.storage.galleries import GalleryRow
from service.workers.retention import DAY

router = APIRouter(prefix="/v1/galleries/{gallery}", tags=["galleries"])


@dataclass(frozen=True, slots=True)
class _Arrived:
    row: EntryRow
    vector: Vectors
    image: bytes | None


_FILE = "application/octet-stream"
_BINARY = {_FILE: {"schema": {"type": "string", "format": "binary"}}}


@router.post(
    "/export",
    summary="Export a gallery",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "JSON lines: the gallery, a line an entry with its vector and the picture that is kept of "
            "it, and a last line with the SHA-256 of those before it. A file without that last line was cut off.",
            "content": _BINARY,
        },
        **problems(404, 503, 507),
    },
)
async def export_gallery(gallery: GalleryPath, service: ServiceDep, caller: ExportCaller) -> Response:
    """Whoever has the file can compare its vectors with any picture, and sees those that the gallery keeps: guard it
    as you would guard pictures.
    """
    row, batches = await service.transfer.export(caller, gallery)
    name = {"Content-Disposition": f'attachment; filename="{gallery}.jsonl"'}
    return StreamingResponse(_lines(row, batches), media_type=_FILE, headers=name)


@router.post(
    "/import",
    summary="Import a gallery",
    status_code=201,
    openapi_extra={"requestBody": {"required": True, "content": _BINARY}},
    responses={201: {"model": Gallery}, **problems(404, 409, 415, 429, 503, 504, 507)},
)
async def import_gallery(gallery: GalleryPath, request: Request, service: ServiceDep, caller: AdminCaller) -> Response:
    """A file of an export becomes a new gallery of this name, whole or not at all; its entries get new ids.

    It may be larger than other requests, as nothing of it is held in memory.
    """
    if request.headers.get("content-type") != _FILE:
        raise UnsupportedBody(f"send the file of an export as {_FILE}")
    share = request.scope["share"]
    longest = min(LONGEST, share.budget.longest_line)
    lines = BodyLines(share, longest, service.settings.request_timeout, open_end=False)
    async with lines.reading(request.receive):
        return await _import(gallery, _records(lines), service, caller)


async def _import(name: str, arriving: AsyncIterator[dict[str, Any]], service: Container, caller: str) -> Response:
    first = parse(ExportedGallery, await anext(arriving))
    model = service.bundle.manifest
    if (first.fingerprint, first.dim) != (model.model.fingerprint, model.output.dim):
        raise ModelMismatch(
            f"the export is of model {first.fingerprint[:12]} and {model.model.fingerprint[:12]} is loaded: start the "
            "service with the bundle of the export to import it, or enrol its crops again into a new gallery"
        )
    async with service.transfer.incoming(caller, name, first.purpose, retention_of(first), first.keep_crops) as keep:
        await _keep_all(arriving, first, service.embedder, keep)
    return JsonResponse(gallery_view(service, service.galleries.find(name)), 201)


async def _lines(row: GalleryRow, batches: AsyncIterator[list[ExportedRow]]) -> AsyncIterator[bytes]:
    writer = ExportWriter()
    days = None if row.retention is None else row.retention / DAY
    header = {
        **FORMAT,
        "fingerprint": row.fingerprint,
        "dim": row.dim,
        "purpose": row.purpose,
        "retention_days": days,
        "keep_crops": row.keep_crops,
    }
    yield writer.line(orjson.dumps(header))
    async for batch in batches:
        yield b"".join(writer.line(orjson.dumps(_exported(one), option=orjson.OPT_UTC_Z)) for one in batch)
    yield writer.footer()


def _exported(one: ExportedRow) -> dict[str, Any]:
    entry = one.row
    image = {} if one.image is None else {"image": base64.b64encode(one.image).decode()}
    return {
        "person_id": entry.person_id,
        "camera_id": entry.camera_id,
        "captured_at": moment(entry.captured_at),
        "attributes": orjson.Fragment(entry.attributes),
        "created_at": moment(entry.created_at),
        "vector": base64.b64encode(one.vector).decode(),
        **image,
    }


async def _records(lines: BodyLines) -> AsyncIterator[dict[str, Any]]:
    """The records of the body, as they arrive."""
    reader = ExportReader(_parse_line)
    try:
        while taken := await lines.take(1):
            if (line := taken[0]) is None:
                raise InvalidRequest(f"a line has more than {LONGEST:,} bytes; this is not an exported gallery")
            for record in reader.feed(line + b"\n"):
                yield record
            lines.done(taken)
        reader.verify_complete()
    except InvalidExport as error:
        raise InvalidRequest(str(error)) from None


def _parse_line(line: bytes) -> Any:
    try:
        return parse_json(line, VALUES_PER_ENTRY, "it")
    except (BodyTooLarge, InvalidRequest) as error:
        raise ValueError(str(error)) from None


async def _keep_all(
    arriving: AsyncIterator[dict[str, Any]], gallery: ExportedGallery, embedder: Embedder, keep: WriteBatch
) -> None:
    batch: list[_Arrived] = []
    size = 0
    number = 1
    async for record in arriving:
        number += 1
        try:
            one = await _arrived(record, gallery, embedder)
        except (InvalidRequest, ImageError) as error:
            raise InvalidRequest(f"line {number}: {error}", getattr(error, "problems", ())) from None
        batch.append(one)
        size += one.vector.nbytes + len(one.image or b"")
        if len(batch) == BATCH or size >= BATCH_BYTES:
            await _keep_batch(batch, keep)
            batch, size = [], 0
    if batch:
        await _keep_batch(batch, keep)


async def _keep_batch(batch: list[_Arrived], keep: WriteBatch) -> None:
    await keep([one.row for one in batch], np.stack([one.vector for one in batch]), [one.image for one in batch])


async def _arrived(record: dict[str, Any], gallery: ExportedGallery, embedder: Embedder) -> _Arrived:
    one = parse(ExportedEntry, record)
    attributes = orjson.dumps(one.attributes).decode()
    captured, enrolled = microseconds(one.captured_at), microseconds(one.created_at)
    assert enrolled is not None
    enrolled = min(enrolled, now())  # by the clock of another machine; an entry from the future would never expire
    entry = EntryRow(0, one.person_id, one.camera_id, captured, attributes, enrolled)
    return _Arrived(entry, unit_vector(one.vector, gallery.dim), await _image(one, gallery, embedder))


async def _image(one: ExportedEntry, gallery: ExportedGallery, embedder: Embedder) -> bytes | None:
    """Whoever made the file: no bytes of a picture are kept that this service did not write itself."""
    if one.image is None:
        return None
    if not gallery.keep_crops:
        raise InvalidRequest("there is a picture, and by its first line the gallery keeps none")
    image = image_from_base64(one.image)
    if isinstance(image, ImageError):
        raise image
    return await embedder.reencode(image)
