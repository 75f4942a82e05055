"""/v1/galleries/{gallery}/entries: list, read, change and delete entries."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathParameter
from pydantic import BeforeValidator

from pan_reid.schemas import Entry, EntryInfo, EntryPage, EntryUpdate, Identifier
from service.api.auth import EnrolCaller, EraseCaller, ExportCaller
from service.api.dependencies import GalleryPath, Limit, UseCasesDep
from service.api.mapping import entry_view
from service.api.methods import register_digits
from service.api.openapi import changes_body, problems
from service.api.parsing.body import read_json
from service.api.parsing.enrolment import new_entry
from service.api.parsing.form_values import read_int
from service.api.parsing.validation import parse
from service.api.responses import JsonResponse, respond
from service.galleries.commands import DeleteEntry, EntryChanges, GetEntry, GetImage, ListEntries, UpdateEntry

register_digits()
router = APIRouter(prefix="/v1/galleries/{gallery}/entries", tags=["entries"])

_MAX_ID = 2**63 - 1
_PATH = "/{entry_id:digits}"  # does not match `stream`, which has methods of its own
EntryId = Annotated[int, BeforeValidator(read_int), PathParameter(ge=1, le=_MAX_ID)]
Cursor = Annotated[
    int, BeforeValidator(read_int), Query(ge=0, le=_MAX_ID, description="`next_cursor` of the previous page")
]


@router.get("", summary="List entries", responses={200: {"model": EntryPage}, **problems(404, 503)})
async def list_entries(
    gallery: GalleryPath,
    use_cases: UseCasesDep,
    _: ExportCaller,
    cursor: Cursor = 0,
    limit: Limit = 100,
    person_id: Identifier | None = None,
    camera_id: Identifier | None = None,
) -> Response:
    """A page of entries, in the order of enrolment."""
    page = await use_cases.entries.page(ListEntries(gallery, cursor, limit, person_id, camera_id))
    cursor_after = None if page.next_after is None else str(page.next_after)
    return await respond(
        lambda: {"entries": [entry_view(entry) for entry in page.entries], "next_cursor": cursor_after},
        len(page.entries),
    )


@router.get(_PATH, summary="Get an entry", responses={200: {"model": Entry}, **problems(404, 503)})
async def get_entry(gallery: GalleryPath, entry_id: EntryId, use_cases: UseCasesDep, _: ExportCaller) -> Response:
    """The metadata of an entry. The hits of a search contain the same."""
    return JsonResponse(entry_view(await use_cases.entries.get(GetEntry(gallery, entry_id))))


@router.get(
    f"{_PATH}/image",
    summary="Get the kept image of an entry",
    response_class=Response,
    responses={
        200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
        **problems(404, 503, 507),
    },
)
async def get_image(gallery: GalleryPath, entry_id: EntryId, use_cases: UseCasesDep, caller: ExportCaller) -> Response:
    """The crop as this service encoded it, if the gallery keeps crops. Each call is in the audit log."""
    image = await use_cases.entries.image(GetImage(caller, gallery, entry_id))
    return Response(image, media_type="image/jpeg")


@router.patch(
    _PATH,
    summary="Change an entry",
    openapi_extra=changes_body(EntryUpdate),
    responses={200: {"model": Entry}, **problems(404, 413, 415, 503, 504, 507)},
)
async def update_entry(
    gallery: GalleryPath, entry_id: EntryId, request: Request, use_cases: UseCasesDep, caller: EnrolCaller
) -> Response:
    """Change person, camera, time or attributes. The vector stays."""
    update = parse(EntryUpdate, await read_json(request, use_cases.settings))
    command = UpdateEntry(caller, gallery, entry_id, _changes(update))
    return JsonResponse(entry_view(await use_cases.entries.update(command)))


@router.delete(
    _PATH,
    summary="Delete an entry",
    status_code=204,
    response_class=Response,
    responses=problems(404, 503, 507),
)
async def delete_entry(
    gallery: GalleryPath, entry_id: EntryId, use_cases: UseCasesDep, caller: EraseCaller
) -> Response:
    """Deletes the entry with its vector and image. To erase a person for good, use the call that erases persons: it
    also empties the write-ahead log of the database.
    """
    await use_cases.entries.delete(DeleteEntry(caller, gallery, entry_id))
    return Response(status_code=204)


def _changes(update: EntryUpdate) -> EntryChanges:
    entry, given = new_entry(EntryInfo.model_construct(**dict(update))), update.model_fields_set
    changes = EntryChanges()
    if "person_id" in given:
        changes["person_id"] = entry.person_id
    if "camera_id" in given:
        changes["camera_id"] = entry.camera_id
    if "captured_at" in given:
        changes["captured_at"] = entry.captured_at
    if "attributes" in given:
        changes["attributes"] = entry.attributes
    return changes
