"""POST /v1/embeddings: images in, unit vectors out."""

import base64
import io
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from bundle import ImageError
from pan_reid.schemas import Embeddings, EmbedOptions
from service.api.dependencies import (
    EMBEDDING_PROBLEMS,
    EmbedCaller,
    ServiceDep,
    parse_options,
    problems,
    respond,
    run_off_loop,
    run_until_disconnect,
)
from service.api.openapi import embeddings_body
from service.api.parsing.body import read_body
from service.api.parsing.images import parse_images, require_all, some_usable
from service.core.errors import item_error
from service.core.types import Vectors

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
    pictures = await run_off_loop(body, lambda: parse_images(body, service.settings.max_images))
    options = parse_options(EmbedOptions, body)
    outcomes = await run_until_disconnect(request, service.embedder.embed(pictures.images, pictures.boxes))
    if _BINARY in request.headers.get("accept", ""):
        buffer = io.BytesIO()
        np.save(buffer, np.stack(require_all(outcomes, pictures.names)), allow_pickle=False)
        return Response(buffer.getbuffer(), media_type=_BINARY)
    some_usable(outcomes, pictures.names)
    model = service.bundle.manifest.model
    return await respond(
        lambda: {
            "fingerprint": model.fingerprint,
            "dim": model.embedding_size,
            "embeddings": [_result(index, outcome, options.encoding) for index, outcome in enumerate(outcomes)],
        },
        len(outcomes),
        207 if any(isinstance(outcome, ImageError) for outcome in outcomes) else 200,
    )


def _result(index: int, outcome: Vectors | ImageError, encoding: str) -> dict[str, Any]:
    if isinstance(outcome, ImageError):
        return {"index": index, "error": item_error(outcome)}
    if encoding == "base64":
        return {"index": index, "embedding": base64.b64encode(outcome.astype("<f4").tobytes()).decode()}
    return {"index": index, "embedding": outcome}
