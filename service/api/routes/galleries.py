"""/v1/galleries: make, look at, change and erase galleries."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from pan_reid.schemas import ErasureReceipt, ExportedGallery, Gallery, GalleryCreate, GalleryList, GalleryUpdate
from service.api.dependencies import AdminCaller, Caller, EraseCaller, GalleryPath, ServiceDep, parse, problems
from service.api.mapping import moment
from service.api.openapi import changes_body, json_body
from service.api.parsing.body import read_json
from service.api.responses import JsonResponse
from service.container import Container
from service.core.clock import now
from service.galleries.catalog import LoadedGallery
from service.index.gallery_index import GalleryIndex as InMemory
from service.storage.galleries import GalleryRow
from service.workers.retention import DAY

router = APIRouter(prefix="/v1/galleries", tags=["galleries"])


def gallery_view(service: Container, gallery: LoadedGallery) -> dict[str, Any]:
    """A gallery as the API shows it."""
    row = gallery.row
    return {
        "name": row.name,
        "purpose": row.purpose,
        "index": row.index_kind,
        "index_now": index_view(gallery.memory),
        "fingerprint": row.fingerprint,
        "dim": row.dim,
        "created_at": moment(row.created_at),
        "retention_days": None if row.retention is None else row.retention / DAY,
        "keep_crops": row.keep_crops,
        "searchable": service.galleries.is_current(row),
        "entries": gallery.entries,
        "set_aside": len(gallery.memory.set_aside),
        "persons": gallery.memory.persons,
    }


def index_view(gallery: InMemory) -> dict[str, Any]:
    """What searches a gallery now, as the API shows it."""
    segment = gallery.segment
    if (index := segment.ann) is None or (measured := index.measured) is None:
        return {
            "kind": "flat",
            "entries": len(gallery),
            "exact": True,
            "recall": 1.0,
            "recall_recent": 1.0,
            "queries": 0,
            "queries_recent": 0,
            "measured_at": None,
        }
    return {
        "kind": index.kind,
        "entries": int(np.count_nonzero(segment.metadata.live[: measured.rows])),
        "exact": segment.is_exact,
        "recall": measured.recall,
        "recall_recent": measured.recall_recent,
        "queries": measured.queries,
        "queries_recent": measured.queries_recent,
        "measured_at": moment(measured.at),
    }


@router.get("", summary="List galleries", responses={200: {"model": GalleryList}, **problems(503)})
async def list_galleries(service: ServiceDep, _: Caller) -> Response:
    """Every gallery, by name."""
    return JsonResponse({"galleries": [gallery_view(service, each) for each in service.galleries.all()]})


@router.post(
    "",
    summary="Create a gallery",
    status_code=201,
    openapi_extra=json_body(GalleryCreate),
    responses={201: {"model": Gallery}, **problems(409, 413, 415, 503, 504, 507)},
)
async def create_gallery(request: Request, service: ServiceDep, caller: AdminCaller) -> Response:
    """A gallery belongs to the model that is loaded when it is created."""
    wanted = parse(GalleryCreate, await read_json(request, service.settings))
    made = await service.galleries.create(
        caller, wanted.name, wanted.purpose, wanted.index, retention_of(wanted), wanted.keep_crops
    )
    return JsonResponse(gallery_view(service, made), 201, {"Location": f"/v1/galleries/{wanted.name}"})


@router.get("/{gallery}", summary="A gallery", responses={200: {"model": Gallery}, **problems(404, 503)})
async def get_gallery(gallery: GalleryPath, service: ServiceDep, _: Caller) -> Response:
    """With the number of its entries and persons."""
    return JsonResponse(gallery_view(service, service.galleries.find(gallery)))


@router.patch(
    "/{gallery}",
    summary="Change a gallery",
    openapi_extra=changes_body(GalleryUpdate),
    responses={200: {"model": Gallery}, **problems(404, 413, 415, 503, 504, 507)},
)
async def update_gallery(gallery: GalleryPath, request: Request, service: ServiceDep, caller: AdminCaller) -> Response:
    """Purpose, index, retention, and whether it keeps crops: where it no longer does, those it kept are erased."""
    service.galleries.find(gallery)
    wanted = parse(GalleryUpdate, await read_json(request, service.settings))

    def change(row: GalleryRow) -> GalleryRow:
        if "purpose" in wanted.model_fields_set:
            row = replace(row, purpose=wanted.purpose)
        if "index" in wanted.model_fields_set:
            row = replace(row, index_kind=wanted.index)
        if "retention_days" in wanted.model_fields_set:
            row = replace(row, retention=retention_of(wanted))
        if "keep_crops" in wanted.model_fields_set:
            row = replace(row, keep_crops=wanted.keep_crops)
        return row

    return JsonResponse(gallery_view(service, await service.galleries.update(caller, gallery, change)))


@router.post(
    "/{gallery}/purge",
    summary="Erase what has expired",
    responses={200: {"model": ErasureReceipt}, **problems(404, 503, 507)},
)
async def purge(gallery: GalleryPath, service: ServiceDep, caller: EraseCaller) -> Response:
    """The service does so each minute by itself; this says when it is done. Nothing expires without retention_days."""
    erasure = await service.purger.purge(caller, gallery)
    return JsonResponse({"gallery": gallery, **asdict(erasure), "erased_at": moment(now())})


@router.delete(
    "/{gallery}", summary="Erase a gallery", responses={200: {"model": ErasureReceipt}, **problems(404, 503, 507)}
)
async def delete_gallery(gallery: GalleryPath, service: ServiceDep, caller: AdminCaller) -> Response:
    """All its entries, vectors and pictures go with it."""
    erasure = await service.galleries.delete(caller, gallery)
    return JsonResponse({"gallery": gallery, **asdict(erasure), "erased_at": moment(now())})


def retention_of(wanted: GalleryCreate | GalleryUpdate | ExportedGallery) -> int | None:
    """In microseconds."""
    return None if wanted.retention_days is None else round(wanted.retention_days * DAY)
