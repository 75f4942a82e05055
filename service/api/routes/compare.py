"""POST /v1/compare: the similarity of two sets of images."""

from fastapi import APIRouter, Request, Response

from pan_reid.schemas import Comparison, DecisionOptions
from service.api.auth import EmbedCaller
from service.api.deadline import run_until_disconnect
from service.api.dependencies import UseCasesDep
from service.api.mapping import comparison_view
from service.api.openapi import EMBEDDING_PROBLEMS, compare_body, problems
from service.api.parsing.body import Body, read_body, run_off_loop
from service.api.parsing.images import images_from_base64
from service.api.parsing.validation import parse_options
from service.api.responses import JsonResponse
from service.core.errors import InvalidRequest
from service.galleries.commands import CompareImages, Images

router = APIRouter(tags=["compare"])

_SIDES = ("a", "b")


@router.post(
    "/v1/compare",
    summary="Compare two sets of images",
    openapi_extra=compare_body(),
    responses={200: {"model": Comparison}, **problems(409, 507, *EMBEDDING_PROBLEMS)},
)
async def compare(request: Request, use_cases: UseCasesDep, caller: EmbedCaller) -> Response:
    """Each set shows one person and is fused by its mean. Send multipart files named `a` and `b`, or lists of base64 in
    JSON.

    The service stores nothing but a line in the audit log: time, caller and number of images.
    """
    settings = use_cases.settings
    body = await read_body(request, settings)
    command = await run_off_loop(body, lambda: _parse(caller, body, settings.max_images))
    return JsonResponse(comparison_view(await run_until_disconnect(request, use_cases.inference.compare(command))))


def _parse(caller: str, body: Body, max_images: int) -> CompareImages:
    a, b = (_parse_side(body, side, max_images) for side in _SIDES)
    if others := set(body.names) - set(_SIDES):
        raise InvalidRequest(f"files are named a or b, for their set; not {', '.join(sorted(others))}")
    options = parse_options(DecisionOptions, body)
    return CompareImages(caller, a, b, options.false_positive_rate, options.threshold)


def _parse_side(body: Body, side: str, max_images: int) -> Images:
    if body.is_json:
        images = images_from_base64(body.members.pop(side, []), side, max_images)
    else:
        images = [image for name, image in zip(body.names, body.images, strict=False) if name == side]
    if not images:
        raise InvalidRequest(f"there is no image in the set `{side}`")
    return Images(tuple(images), member=side)
