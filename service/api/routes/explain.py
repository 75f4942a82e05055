"""POST /v1/explain: what the network looked at."""

import asyncio
import base64
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from bundle import ImageError
from pan_reid.schemas import EmbedOptions, Explanations
from service.api.dependencies import (
    EMBEDDING_PROBLEMS,
    EmbedCaller,
    ServiceDep,
    parse_options,
    problems,
    run_off_loop,
    run_until_disconnect,
)
from service.api.openapi import embeddings_body
from service.api.parsing.body import read_body
from service.api.parsing.images import ImageInput, parse_images, some_usable
from service.api.responses import JsonResponse, dumps
from service.container import Container
from service.core.errors import item_error
from service.core.types import Vectors

router = APIRouter(tags=["embeddings"])

Maps = dict[str, Vectors]


@router.post(
    "/v1/explain",
    summary="Part masks and compatibility maps",
    openapi_extra=embeddings_body(),
    responses={
        200: {"model": Explanations, "description": "One result for each image, in order."},
        207: {"model": Explanations, "description": "Some images failed; their results say why."},
        **problems(409, *EMBEDDING_PROBLEMS),
    },
)
async def explain(request: Request, service: ServiceDep, _: EmbedCaller) -> Response:
    """Of few images, given as to /v1/embeddings: `masks`, how much of each part is pooled from each place (0 or more),
    and, for each block with part-aware attention, `compatibility_1` and so on: how well each place fits each part. The
    bundle must have been exported with `--explain`.
    """
    body = await read_body(request, service.settings)
    pictures = await run_off_loop(body, lambda: parse_images(body, service.settings.max_images))
    options = parse_options(EmbedOptions, body)
    service.explainer.require(len(pictures))
    outcomes = await run_until_disconnect(request, _explain(service, pictures))
    content = await asyncio.to_thread(_view, service, outcomes, options.encoding)
    return JsonResponse(content, 207 if any(isinstance(outcome, ImageError) for outcome in outcomes) else 200)


async def _explain(service: Container, pictures: ImageInput) -> list[Maps | ImageError]:
    """The maps of each crop, without the axis of the batch, or why there are none."""
    crops = await service.embedder.decode(pictures.images, pictures.boxes)
    some_usable(crops, pictures.names)
    maps = await service.explainer.maps(np.stack([crop for crop in crops if not isinstance(crop, ImageError)]))
    places = iter(range(len(crops)))
    return [crop if isinstance(crop, ImageError) else _of_one(maps, next(places)) for crop in crops]


def _of_one(maps: Maps, place: int) -> Maps:
    return {name: values[place] for name, values in maps.items()}


def _view(service: Container, outcomes: list[Maps | ImageError], encoding: str) -> bytes:
    results: list[dict[str, Any]] = [
        {"index": index, "error": item_error(outcome)}
        if isinstance(outcome, ImageError)
        else {"index": index, "maps": [_map(name, values, encoding) for name, values in outcome.items()]}
        for index, outcome in enumerate(outcomes)
    ]
    return dumps({"fingerprint": service.bundle.manifest.model.fingerprint, "explanations": results})


def _map(name: str, values: Vectors, encoding: str) -> dict[str, Any]:
    numbers = base64.b64encode(values.astype("<f4").tobytes()).decode() if encoding == "base64" else values
    return {"name": name, "shape": values.shape, "values": numbers}
