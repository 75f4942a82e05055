"""A gallery's way to the loaded model: begin it, and see how far it is."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BeforeValidator

from pan_reid.schemas import ReEmbedding
from service.api.dependencies import AdminCaller, Caller, GalleryPath, ServiceDep, problems
from service.api.mapping import moment
from service.api.parsing.form_values import read_bool
from service.api.responses import JsonResponse
from service.workers.reembedding import Progress

router = APIRouter(prefix="/v1/galleries/{gallery}/re-embed", tags=["galleries"])

Drop = Annotated[
    bool,
    BeforeValidator(read_bool),
    Query(description="erase at the end what keeps no picture, as many entries as there are now"),
]


@router.post(
    "",
    summary="Bring a gallery to the loaded model",
    status_code=202,
    responses={
        200: {"model": ReEmbedding, "description": "The gallery is of the loaded model; there is nothing to do."},
        202: {"model": ReEmbedding, "description": "It is under way."},
        **problems(404, 409, 503, 507),
    },
)
async def re_embed(
    gallery: GalleryPath, service: ServiceDep, caller: AdminCaller, drop_without_crop: Drop = False
) -> Response:
    """Its kept crops are embedded again, behind all requests and across restarts; asked again, it goes on.

    Until all are done the gallery answers by its former vectors; then fingerprint and vectors change at once. Entries
    keep their ids. To give it up, change the gallery to `keep_crops` false, or delete it.
    """
    progress = await service.reembedder.start(caller, gallery, drop_without_crop)
    return JsonResponse(_view(gallery, progress), 200 if progress.state == "current" else 202)


@router.get("", summary="How far it is", responses={200: {"model": ReEmbedding}, **problems(404, 503)})
async def get_re_embedding(gallery: GalleryPath, service: ServiceDep, _: Caller) -> Response:
    """Once the gallery is of the loaded model, with the receipt of what was erased on the way."""
    return JsonResponse(_view(gallery, await service.reembedder.progress(gallery)))


def _view(gallery: str, progress: Progress) -> dict[str, Any]:
    last = progress.last
    erased = None
    if last is not None and last.finished_at is not None and last.dropped:
        erased = {
            "gallery": gallery,
            "entries": last.dropped,
            "overwritten": last.overwritten,
            "erased_at": moment(last.finished_at),
        }
    return {
        "gallery": gallery,
        "state": progress.state,
        "fingerprint": progress.row.fingerprint,
        "entries": progress.counts.entries,
        "done": progress.counts.done,
        "without_crop": progress.counts.impossible,
        "problem": progress.problem,
        "erased": erased,
    }
