"""POST /v1/explain: the parts of an image that the network uses."""

import asyncio

from fastapi import APIRouter, Request, Response

from pan_reid.schemas import EmbedOptions, Explanations
from service.api.auth import EmbedCaller
from service.api.deadline import run_until_disconnect
from service.api.dependencies import UseCasesDep
from service.api.mapping import explanations_view
from service.api.openapi import EMBEDDING_PROBLEMS, embeddings_body, problems
from service.api.parsing.body import read_body, run_off_loop
from service.api.parsing.images import parse_images
from service.api.parsing.validation import parse_options
from service.api.responses import JsonResponse, dumps
from service.galleries.commands import ExplainImages
from service.galleries.results import ItemFailure

router = APIRouter(tags=["embeddings"])


@router.post(
    "/v1/explain",
    summary="Part masks and compatibility maps",
    openapi_extra=embeddings_body(),
    responses={
        200: {"model": Explanations, "description": "One result for each image, in order."},
        207: {"model": Explanations, "description": "Some images failed; their results contain the errors."},
        **problems(409, *EMBEDDING_PROBLEMS),
    },
)
async def explain(request: Request, use_cases: UseCasesDep, _: EmbedCaller) -> Response:
    """Send a few images as for /v1/embeddings. `masks` are the weights (0 or more) with which each part pools the
    places of the feature map. `compatibility_1` and so on, one for each block with part-aware attention, are the
    scores of each place for each part. The bundle must have been exported with `--explain`.
    """
    body = await read_body(request, use_cases.settings)
    images = await run_off_loop(body, lambda: parse_images(body, use_cases.settings.max_images))
    options = parse_options(EmbedOptions, body)
    result = await run_until_disconnect(request, use_cases.inference.explain(ExplainImages(images)))
    content = await asyncio.to_thread(lambda: dumps(explanations_view(result, options.encoding)))
    return JsonResponse(content, 207 if any(isinstance(one, ItemFailure) for one in result.outcomes) else 200)
