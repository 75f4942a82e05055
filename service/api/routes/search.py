"""POST /v1/galleries/{gallery}/search: other images of a person."""

from fastapi import APIRouter, Request, Response

from pan_reid.schemas import SearchAnswer
from service.api.auth import SearchCaller
from service.api.deadline import run_until_disconnect
from service.api.dependencies import GalleryPath, UseCasesDep
from service.api.mapping import search_view
from service.api.openapi import EMBEDDING_PROBLEMS, problems, search_body
from service.api.parsing.body import read_body, run_off_loop
from service.api.parsing.search import parse_search
from service.api.responses import respond

router = APIRouter(tags=["search"])


@router.post(
    "/v1/galleries/{gallery}/search",
    summary="Search a gallery",
    openapi_extra=search_body(),
    responses={200: {"model": SearchAnswer}, **problems(404, 409, 507, *EMBEDDING_PROBLEMS)},
)
async def search(gallery: GalleryPath, request: Request, use_cases: UseCasesDep, caller: SearchCaller) -> Response:
    """Search by images, by vectors of this model, or by entries of the gallery. Several of them show one person, and
    are fused as `fuse` says.

    Send images as multipart files with the options as form fields, or as one raw `image/*` body with the options in the
    query. Or send JSON with the options and one of `images` (base64), `vector`, `vectors` (numbers, or base64 float32),
    `entry_id` and `entry_ids`. With `boxes`, the image is one frame, and each box is a crop of it.
    """
    body = await read_body(request, use_cases.settings)
    command = await run_off_loop(body, lambda: parse_search(caller, gallery, body, use_cases.settings.max_images))
    result = await run_until_disconnect(request, use_cases.search.search(command))
    return await respond(lambda: search_view(result), result.rows)
