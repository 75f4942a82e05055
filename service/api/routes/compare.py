"""POST /v1/compare: do these two sets of pictures show one person?"""

import numpy as np
from fastapi import APIRouter, Request, Response

from pan_reid.schemas import Comparison, DecisionOptions
from service.api.dependencies import (
    EMBEDDING_PROBLEMS,
    EmbedCaller,
    ServiceDep,
    parse_options,
    problems,
    run_off_loop,
    run_until_disconnect,
)
from service.api.openapi import compare_body
from service.api.parsing.body import Body, read_body
from service.api.parsing.images import images_from_base64, mean_direction, require_all
from service.api.responses import JsonResponse
from service.core.errors import InvalidRequest
from service.core.types import Image
from service.galleries.match_policy import resolve_threshold

router = APIRouter(tags=["compare"])

_SIDES = ("a", "b")


@router.post(
    "/v1/compare",
    summary="Compare two sets of images",
    openapi_extra=compare_body(),
    responses={200: {"model": Comparison}, **problems(409, 507, *EMBEDDING_PROBLEMS)},
)
async def compare(request: Request, service: ServiceDep, caller: EmbedCaller) -> Response:
    """Each set is of one person and fused by its mean. Multipart files named `a` and `b`, or lists of base64 in JSON.

    Nothing is kept but a line in the audit: when, by whom, how many pictures.
    """
    body = await read_body(request, service.settings)
    sides = await run_off_loop(
        body, lambda: {side: _images(body, side, service.settings.max_images) for side in _SIDES}
    )
    if strangers := set(body.names) - set(_SIDES):
        raise InvalidRequest(f"files are named a or b, for the set they belong to; not {', '.join(sorted(strangers))}")
    options = parse_options(DecisionOptions, body)
    decision = resolve_threshold(service.bundle.manifest.calibration, options.false_positive_rate, options.threshold)
    images = [image for side in _SIDES for image in sides[side]]
    names = [f"{side}.{place}" for side in _SIDES for place in range(len(sides[side]))]
    async with service.entries.audit_concurrently(caller, "compare", "", len(images)):
        vectors = require_all(await run_until_disconnect(request, service.embedder.embed(images)), names)
    a, b = vectors[: len(sides["a"])], vectors[len(sides["a"]) :]
    cosines = np.stack(a) @ np.stack(b).T
    place_a, place_b = np.unravel_index(int(cosines.argmax()), cosines.shape)
    similarity = float(mean_direction(a) @ mean_direction(b))
    return JsonResponse(
        {
            "similarity": similarity,
            **decision.classify(similarity),
            "best": {"a": int(place_a), "b": int(place_b), "similarity": float(cosines[place_a, place_b])},
            **decision.view(),
        }
    )


def _images(body: Body, side: str, most: int) -> list[Image]:
    if body.is_json:
        images = images_from_base64(body.members.pop(side, []), side, most)
    else:
        images = [image for name, image in zip(body.names, body.images, strict=False) if name == side]
    if not images:
        raise InvalidRequest(f"there is no image in the set `{side}`")
    return images
