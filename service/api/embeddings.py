"""POST /v1/embeddings: images in, unit vectors out."""

import base64
import io
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from bundle import ImageError
from service.answers import Json, item_error
from service.api.deps import (
    EMBEDDING_PROBLEMS,
    EmbedCaller,
    ServiceDep,
    beside,
    parse,
    problems,
    while_connected,
)
from service.api.docs import embeddings_body
from service.api.inputs import all_usable, some_usable, take_pictures
from service.body import read_body
from service.schemas import Embeddings, EmbedOptions

router = APIRouter(tags=["embeddings"])

_BINARY = "application/octet-stream"


@router.post(
    "/v1/embeddings",
    summary="Embed images",
    openapi_extra=embeddings_body(),
    responses={
        200: {
            "model": Embeddings,
            "description": "One result for each image, in order. With `Accept: application/octet-stream` a NumPy .npy "
            "file of float32 (images, dim), and then one bad image fails the request.",
            "content": {_BINARY: {"schema": {"type": "string", "format": "binary"}}},
        },
        207: {"model": Embeddings, "description": "Some images failed; their results say why."},
        **problems(*EMBEDDING_PROBLEMS),
    },
)
async def embed(request: Request, service: ServiceDep, _: EmbedCaller) -> Response:
    """Images as multipart files, as one raw `image/*` body, or as base64 in the JSON member `images`. With `boxes`,
    one image is a frame that is cut into crops.
    """
    body = await read_body(request, service.settings)
    pictures = await beside(body, lambda: take_pictures(body))
    options = parse(EmbedOptions, body.members)
    outcomes = await while_connected(request, service.embedder.embed(pictures.images, pictures.boxes))
    if _BINARY in request.headers.get("accept", ""):
        buffer = io.BytesIO()
        np.save(buffer, np.stack(all_usable(outcomes, pictures.names)), allow_pickle=False)
        return Response(buffer.getbuffer(), media_type=_BINARY)
    some_usable(outcomes, pictures.names)
    results: list[dict[str, Any]] = []
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, ImageError):
            results.append({"index": index, "error": item_error(outcome)})
        elif options.encoding == "base64":
            results.append({"index": index, "embedding": base64.b64encode(outcome.astype("<f4").tobytes()).decode()})
        else:
            results.append({"index": index, "embedding": outcome})
    model = service.bundle.manifest.model
    failed = any("error" in result for result in results)
    return Json(
        {"fingerprint": model.fingerprint, "dim": model.embedding_size, "embeddings": results}, 207 if failed else 200
    )
