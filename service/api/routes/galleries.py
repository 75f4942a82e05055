"""/v1/galleries: create, list, change and erase galleries."""

from fastapi import APIRouter, Request, Response

from pan_reid.schemas import ErasureReceipt, Gallery, GalleryCreate, GalleryList, GalleryUpdate
from service.api.auth import AdminCaller, Caller, EraseCaller
from service.api.dependencies import GalleryPath, UseCasesDep
from service.api.mapping import gallery_view, receipt_view, retention_of
from service.api.openapi import changes_body, json_body, problems
from service.api.parsing.body import read_json
from service.api.parsing.validation import parse
from service.api.responses import JsonResponse
from service.galleries.commands import (
    CreateGallery,
    DeleteGallery,
    GalleryChanges,
    GetGallery,
    PurgeGallery,
    UpdateGallery,
)

router = APIRouter(prefix="/v1/galleries", tags=["galleries"])


@router.get("", summary="List galleries", responses={200: {"model": GalleryList}, **problems(503)})
async def list_galleries(use_cases: UseCasesDep, _: Caller) -> Response:
    """Every gallery, sorted by name."""
    return JsonResponse({"galleries": [gallery_view(gallery) for gallery in await use_cases.galleries.list()]})


@router.post(
    "",
    summary="Create a gallery",
    status_code=201,
    openapi_extra=json_body(GalleryCreate),
    responses={201: {"model": Gallery}, **problems(409, 413, 415, 503, 504, 507)},
)
async def create_gallery(request: Request, use_cases: UseCasesDep, caller: AdminCaller) -> Response:
    """A gallery belongs to the model that is loaded when it is created."""
    wanted = parse(GalleryCreate, await read_json(request, use_cases.settings))
    command = CreateGallery(caller, wanted.name, wanted.purpose, wanted.index, retention_of(wanted), wanted.keep_crops)
    gallery = await use_cases.galleries.create(command)
    return JsonResponse(gallery_view(gallery), 201, {"Location": f"/v1/galleries/{wanted.name}"})


@router.get("/{gallery}", summary="Get a gallery", responses={200: {"model": Gallery}, **problems(404, 503)})
async def get_gallery(gallery: GalleryPath, use_cases: UseCasesDep, _: Caller) -> Response:
    """The settings of a gallery, and the numbers of its entries and persons."""
    return JsonResponse(gallery_view(await use_cases.galleries.get(GetGallery(gallery))))


@router.patch(
    "/{gallery}",
    summary="Change a gallery",
    openapi_extra=changes_body(GalleryUpdate),
    responses={200: {"model": Gallery}, **problems(404, 413, 415, 503, 504, 507)},
)
async def update_gallery(
    gallery: GalleryPath, request: Request, use_cases: UseCasesDep, caller: AdminCaller
) -> Response:
    """Change purpose, index, retention, and whether the gallery keeps crops. If it no longer does, its kept crops are
    erased.
    """
    wanted = parse(GalleryUpdate, await read_json(request, use_cases.settings))
    command = UpdateGallery(caller, gallery, _changes(wanted))
    return JsonResponse(gallery_view(await use_cases.galleries.update(command)))


@router.post(
    "/{gallery}/purge",
    summary="Erase expired entries",
    responses={200: {"model": ErasureReceipt}, **problems(404, 503, 507)},
)
async def purge(gallery: GalleryPath, use_cases: UseCasesDep, caller: EraseCaller) -> Response:
    """The service does this by itself each minute; this call returns when it is done. Entries expire only in a gallery
    with retention_days.
    """
    return JsonResponse(receipt_view(gallery, await use_cases.retention.purge(PurgeGallery(caller, gallery))))


@router.delete(
    "/{gallery}", summary="Erase a gallery", responses={200: {"model": ErasureReceipt}, **problems(404, 503, 507)}
)
async def delete_gallery(gallery: GalleryPath, use_cases: UseCasesDep, caller: AdminCaller) -> Response:
    """Erases the gallery with all its entries, vectors and images."""
    return JsonResponse(receipt_view(gallery, await use_cases.galleries.delete(DeleteGallery(caller, gallery))))


def _changes(wanted: GalleryUpdate) -> GalleryChanges:
    given = wanted.model_fields_set
    changes = GalleryChanges()
    if "purpose" in given:
        changes["purpose"] = wanted.purpose
    if "index" in given:
        changes["index_kind"] = wanted.index
    if "retention_days" in given:
        changes["retention"] = retention_of(wanted)
    if "keep_crops" in given:
        changes["keep_crops"] = wanted.keep_crops
    return changes
