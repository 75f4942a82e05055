"""/v1/galleries/{gallery}/entries: enrol crops, look at them, change what is known of them, delete them."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathParameter
from pydantic import BeforeValidator

from pan_reid.schemas import Entry, EntryInfo, EntryPage, EntryUpdate, Identifier
from service.api.dependencies import (
    EnrolCaller,
    EraseCaller,
    ExportCaller,
    GalleryPath,
    Limit,
    ServiceDep,
    parse,
    problems,
    respond,
)
from service.api.mapping import entry_view
from service.api.methods import register_digits
from service.api.openapi import changes_body
from service.api.parsing.body import read_json
from service.api.parsing.form_values import read_int
from service.api.responses import JsonResponse
from service.api.routes.enrol import new_entry
from service.container import Container
from service.core.models import EntryRow

register_digits()
router = APIRouter(prefix="/v1/galleries/{gallery}/entries", tags=["entries"])

_MAX_ID = 2**63 - 1
_PATH = "/{entry_id:digits}"  # anything else is no entry, and `stream` beside it has methods of its own
EntryId = Annotated[int, BeforeValidator(read_int), PathParameter(ge=1, le=_MAX_ID)]
Cursor = Annotated[
    int, BeforeValidator(read_int), Query(ge=0, le=_MAX_ID, description="`next_cursor` of the page before")
]


@router.get("", summary="List entries", responses={200: {"model": EntryPage}, **problems(404, 503)})
async def list_entries(
    gallery: GalleryPath,
    service: ServiceDep,
    _: ExportCaller,
    cursor: Cursor = 0,
    limit: Limit = 100,
    person_id: Identifier | None = None,
    camera_id: Identifier | None = None,
) -> Response:
    """In the order of enrolment, a page at a time."""
    rows = await service.entries.page(gallery, after=cursor, limit=limit + 1, person_id=person_id, camera_id=camera_id)
    more = len(rows) > limit
    rows = rows[:limit]
    kept = await service.entries.kept([row.id for row in rows])
    cursor_after = str(rows[-1].id) if more else None
    return await respond(
        lambda: {"entries": [entry_view(row, row.id in kept) for row in rows], "next_cursor": cursor_after}, len(rows)
    )


@router.get(_PATH, summary="An entry", responses={200: {"model": Entry}, **problems(404, 503)})
async def get_entry(gallery: GalleryPath, entry_id: EntryId, service: ServiceDep, _: ExportCaller) -> Response:
    """What is known of an enrolled crop. The hits of a search bring the same."""
    return await _shown(service, await service.entries.get(gallery, entry_id))


@router.get(
    f"{_PATH}/image",
    summary="The kept picture of an entry",
    response_class=Response,
    responses={
        200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
        **problems(404, 503, 507),
    },
)
async def get_image(gallery: GalleryPath, entry_id: EntryId, service: ServiceDep, caller: ExportCaller) -> Response:
    """The crop as this service encoded it, where the gallery keeps crops; each look is in the audit."""
    return Response(await service.entries.image(caller, gallery, entry_id), media_type="image/jpeg")


@router.patch(
    _PATH,
    summary="Change an entry",
    openapi_extra=changes_body(EntryUpdate),
    responses={200: {"model": Entry}, **problems(404, 413, 415, 503, 504, 507)},
)
async def update_entry(
    gallery: GalleryPath, entry_id: EntryId, request: Request, service: ServiceDep, caller: EnrolCaller
) -> Response:
    """Give it a person, camera, time or attributes; the vector stays."""
    await service.entries.get(gallery, entry_id)
    update = parse(EntryUpdate, await read_json(request, service.settings))
    wanted = new_entry(EntryInfo.model_construct(**dict(update)))
    given = {name: getattr(wanted, name) for name in update.model_fields_set}

    def change(entry: EntryRow) -> EntryRow:
        return replace(entry, **given)

    return await _shown(service, await service.entries.update(caller, gallery, entry_id, change))


@router.delete(
    _PATH,
    summary="Delete an entry",
    status_code=204,
    response_class=Response,
    responses=problems(404, 503, 507),
)
async def delete_entry(gallery: GalleryPath, entry_id: EntryId, service: ServiceDep, caller: EraseCaller) -> Response:
    """Its vector and picture go with it. To forget a person for good, erase the person: that also empties the log of
    the database.
    """
    await service.entries.delete(caller, gallery, entry_id)
    return Response(status_code=204)


async def _shown(service: Container, row: EntryRow) -> Response:
    return JsonResponse(entry_view(row, bool(await service.entries.kept([row.id]))))
