"""/v1/galleries/{gallery}/re-embed: bring a gallery to the loaded model, and show the progress."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BeforeValidator

from pan_reid.schemas import ReEmbedding
from service.api.auth import AdminCaller, Caller
from service.api.dependencies import GalleryPath, UseCasesDep
from service.api.mapping import re_embedding_view
from service.api.openapi import problems
from service.api.parsing.form_values import read_bool
from service.api.responses import JsonResponse
from service.galleries.commands import GetReEmbedding, ReEmbedGallery

router = APIRouter(prefix="/v1/galleries/{gallery}/re-embed", tags=["galleries"])

Drop = Annotated[
    bool,
    BeforeValidator(read_bool),
    Query(description="at the end, erase the entries without a kept crop: at most as many as there are now"),
]


@router.post(
    "",
    summary="Bring a gallery to the loaded model",
    status_code=202,
    responses={
        200: {"model": ReEmbedding, "description": "The gallery is of the loaded model; there is nothing to do."},
        202: {"model": ReEmbedding, "description": "The re-embedding is running."},
        **problems(404, 409, 503, 507),
    },
)
async def re_embed(
    gallery: GalleryPath, use_cases: UseCasesDep, caller: AdminCaller, drop_without_crop: Drop = False
) -> Response:
    """Embeds the kept crops again, with lower priority than requests, and across restarts. Another call continues a
    stopped re-embedding.

    The gallery answers with its old vectors until all crops are embedded; then fingerprint and vectors change at once.
    Entries keep their ids. To cancel, set `keep_crops` of the gallery to false, or delete the gallery.
    """
    progress = await use_cases.reembedding.start(ReEmbedGallery(caller, gallery, drop_without_crop))
    return JsonResponse(re_embedding_view(progress), 200 if progress.state == "current" else 202)


@router.get("", summary="Get the progress", responses={200: {"model": ReEmbedding}, **problems(404, 503)})
async def get_re_embedding(gallery: GalleryPath, use_cases: UseCasesDep, _: Caller) -> Response:
    """Once the gallery is of the loaded model, this includes the receipt for entries that were erased."""
    return JsonResponse(re_embedding_view(await use_cases.reembedding.progress(GetReEmbedding(gallery))))
