"""POST /v1/galleries/{gallery}/entries: enrols crops, once for each idempotency key."""

import asyncio
from dataclasses import replace

from fastapi import APIRouter, Request, Response

from pan_reid.schemas import Enrolled
from service.api.auth import EnrolCaller
from service.api.deadline import run_until_disconnect
from service.api.dependencies import GalleryPath, KeyHeader, UseCasesDep
from service.api.enrol_results import enrolled_view
from service.api.openapi import EMBEDDING_PROBLEMS, enrol_body, problems
from service.api.parsing.body import read_body, run_off_loop
from service.api.parsing.enrolment import parse_enrolment
from service.api.responses import JsonResponse
from service.galleries.commands import IdempotencyKey

router = APIRouter(prefix="/v1/galleries/{gallery}/entries", tags=["entries"])


@router.post(
    "",
    summary="Enrol crops",
    status_code=201,
    openapi_extra=enrol_body(),
    responses={
        201: {"model": Enrolled, "description": "Every crop is enrolled, and on disk."},
        207: {
            "model": Enrolled,
            "description": "Some crops failed, their results contain the errors; the others are enrolled.",
        },
        **problems(404, 409, 507, *EMBEDDING_PROBLEMS),
    },
)
async def enrol(
    gallery: GalleryPath,
    request: Request,
    use_cases: UseCasesDep,
    caller: EnrolCaller,
    idempotency_key: KeyHeader = None,
) -> Response:
    """Send many crops as multipart files with a JSON list `metadata` in their order, or as the JSON list `entries`,
    where each has an `image` (base64) or a `vector` of this model. Or send one raw `image/*` body with its metadata in
    the query. With `boxes`, the file or raw image is one frame, each box is a crop of it, and `metadata` has one object
    for each box. A crop that cannot be used fails alone. A request without any usable crop is refused.
    """
    settings = use_cases.settings
    body = await read_body(request, settings)
    key = None
    if idempotency_key is not None:
        key = IdempotencyKey(idempotency_key, await asyncio.to_thread(body.digest))
    command = await run_off_loop(body, lambda: parse_enrolment(caller, gallery, body, settings.max_images))
    batch = await run_until_disconnect(request, use_cases.enrolment.enrol(replace(command, key=key)))
    return JsonResponse(enrolled_view(batch), 207 if batch.failures else 201)
