"""A gallery as one file: export from this service, import to another one with the same model."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from bundle import ImageError
from pan_reid.errors import InvalidExport
from pan_reid.schemas import ExportedEntry, ExportedGallery, Gallery
from pan_reid.schemas.export_file import FORMAT, LONGEST, ExportReader, ExportWriter
from service.api.auth import AdminCaller, ExportCaller
from service.api.dependencies import GalleryPath, UseCasesDep
from service.api.mapping import gallery_view, optional_micros, optional_time, retention_days, retention_of
from service.api.openapi import problems
from service.api.parsing.images import image_from_base64, parse_vector
from service.api.parsing.json_text import VALUES_PER_ENTRY, parse_json
from service.api.parsing.line_buffer import BodyLines
from service.api.parsing.validation import parse
from service.api.responses import JsonResponse
from service.container import UseCases
from service.core.clock import to_micros
from service.core.errors import BodyTooLarge, InvalidRequest, UnsupportedBody
from service.core.models import EntryRow
from service.galleries.commands import (
    AbortImport,
    BeginImport,
    ExportGallery,
    FinishImport,
    ImportedEntry,
    ImportEntries,
)
from service.galleries.results import ExportCursor

router = APIRouter(prefix="/v1/galleries/{gallery}", tags=["galleries"])

_FILE = "application/octet-stream"
_BINARY = {_FILE: {"schema": {"type": "string", "format": "binary"}}}
_BATCH = 500  # entries of one commit
_BATCH_BYTES = 4 * 2**20  # of vectors and images in one commit; one entry more may exceed it


@router.post(
    "/export",
    summary="Export a gallery",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "JSON lines: the gallery, one line for each entry with its vector and kept image, and a "
            "last line with the SHA-256 of the lines before it. A file without the last line was cut off.",
            "content": _BINARY,
        },
        **problems(404, 503, 507),
    },
)
async def export_gallery(gallery: GalleryPath, use_cases: UseCasesDep, caller: ExportCaller) -> Response:
    """The file contains vectors, which can be compared with any image, and the kept images. Protect it as you would
    protect the images.
    """
    cursor = await use_cases.transfer.begin_export(ExportGallery(caller, gallery))
    headers = {"Content-Disposition": f'attachment; filename="{gallery}.jsonl"'}
    return StreamingResponse(_export(use_cases, cursor), media_type=_FILE, headers=headers)


@router.post(
    "/import",
    summary="Import a gallery",
    status_code=201,
    openapi_extra={"requestBody": {"required": True, "content": _BINARY}},
    responses={201: {"model": Gallery}, **problems(404, 409, 415, 429, 503, 504, 507)},
)
async def import_gallery(
    gallery: GalleryPath, request: Request, use_cases: UseCasesDep, caller: AdminCaller
) -> Response:
    """Creates a gallery of this name from an exported file, completely or not at all. Its entries get new ids.

    The file may exceed the size limit of other requests, because it is not kept in memory.
    """
    if request.headers.get("content-type") != _FILE:
        raise UnsupportedBody(f"send the exported file as {_FILE}")
    share = request.scope["share"]
    max_line = min(LONGEST, share.budget.max_line)
    lines = BodyLines(share, max_line, use_cases.settings.request_timeout, is_open_ended=False)
    async with lines.reading(request.receive):
        return await _import(gallery, _records(lines), use_cases, caller)


async def _export(use_cases: UseCases, cursor: ExportCursor) -> AsyncIterator[bytes]:
    writer, row = ExportWriter(), cursor.gallery
    header = {
        **FORMAT,
        "fingerprint": row.fingerprint,
        "dim": row.dim,
        "purpose": row.purpose,
        "retention_days": retention_days(row.retention),
        "keep_crops": row.keep_crops,
    }
    yield writer.line(orjson.dumps(header))
    following: ExportCursor | None = cursor
    while following is not None:
        page = await use_cases.transfer.export_page(following)
        yield b"".join(
            writer.line(orjson.dumps(_entry_line(one.row, one.vector, one.image), option=orjson.OPT_UTC_Z))
            for one in page.entries
        )
        following = page.following
    yield writer.footer()


def _entry_line(entry: EntryRow, vector: bytes, image: bytes | None) -> dict[str, Any]:
    line = {
        "person_id": entry.person_id,
        "camera_id": entry.camera_id,
        "captured_at": optional_time(entry.captured_at),
        "attributes": orjson.Fragment(entry.attributes),
        "created_at": optional_time(entry.created_at),
        "vector": base64.b64encode(vector).decode(),
    }
    return line if image is None else {**line, "image": base64.b64encode(image).decode()}


async def _import(name: str, records: AsyncIterator[dict[str, Any]], use_cases: UseCases, caller: str) -> Response:
    header = parse(ExportedGallery, await anext(records))
    transfer = use_cases.transfer
    gallery_id = await transfer.begin_import(
        BeginImport(name, header.fingerprint, header.dim, header.purpose, retention_of(header), header.keep_crops)
    )
    try:
        async for batch in _batches(records, header):
            await transfer.import_entries(ImportEntries(gallery_id, tuple(batch)))
        gallery = await transfer.finish_import(FinishImport(caller, name, gallery_id))
    except BaseException:
        await transfer.abort_import(AbortImport(gallery_id))
        raise
    return JsonResponse(gallery_view(gallery), 201)


async def _records(lines: BodyLines) -> AsyncIterator[dict[str, Any]]:
    """The records of the body, while it arrives."""
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


async def _batches(
    records: AsyncIterator[dict[str, Any]], header: ExportedGallery
) -> AsyncIterator[list[ImportedEntry]]:
    batch: list[ImportedEntry] = []
    size = 0
    number = 1
    async for record in records:
        number += 1
        try:
            one = _parse_entry(number, record, header)
        except (InvalidRequest, ImageError) as error:
            raise InvalidRequest(f"line {number}: {error}", getattr(error, "problems", ())) from None
        batch.append(one)
        size += one.vector.nbytes + len(one.image or b"")
        if len(batch) == _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _parse_entry(number: int, record: dict[str, Any], header: ExportedGallery) -> ImportedEntry:
    one = parse(ExportedEntry, record)
    attributes = orjson.dumps(one.attributes).decode()
    created_at = to_micros(one.created_at)
    entry = EntryRow(0, one.person_id, one.camera_id, optional_micros(one.captured_at), attributes, created_at)
    image = None
    if one.image is not None:
        if not header.keep_crops:
            raise InvalidRequest("it has an image, and by its first line the gallery keeps none")
        decoded = image_from_base64(one.image)
        if isinstance(decoded, ImageError):
            raise decoded
        image = decoded
    return ImportedEntry(number, entry, parse_vector(one.vector), image)
