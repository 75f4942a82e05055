"""POST /v1/embeddings: images in, unit vectors out."""

import io

import numpy as np
from fastapi import APIRouter, Request, Response

from pan_reid.schemas import Embeddings, EmbedOptions
from service.api.auth import EmbedCaller
from service.api.deadline import run_until_disconnect
from service.api.dependencies import UseCasesDep
from service.api.mapping import embeddings_view
from service.api.openapi import EMBEDDING_PROBLEMS, embeddings_body, problems
from service.api.parsing.body import read_body, run_off_loop
from service.api.parsing.images import parse_images
from service.api.parsing.validation import parse_options
from service.api.responses import respond
from service.galleries.commands import EmbedImages
from service.galleries.results import ItemFailure

router = APIRouter(tags=["embeddings"])

_BINARY = "application/octet-stream"


@router.post(
    "/v1/embeddings",
    summary="Embed images",
    openapi_extra=embeddings_body(),
    responses={
        200: {
            "model": Embeddings,
            "description": "One result for each image, in order. With `Accept: application/octet-stream`, a NumPy .npy "
            "file of float32 with shape (images, dim); then one unusable image fails the request.",
            "content": {_BINARY: {"schema": {"type": "string", "format": "binary"}}},
        },
        207: {"model": Embeddings, "description": "Some images failed; their results contain the errors."},
        **problems(*EMBEDDING_PROBLEMS),
    },
)
async def embed(request: Request, use_cases: UseCasesDep, _: EmbedCaller) -> Response:
    """Send images as multipart files, as one raw `image/*` body, or as base64 in the JSON member `images`. With
    `boxes`, the image is one frame, and each box is a crop of it.
    """
    body = await read_body(request, use_cases.settings)
    images = await run_off_loop(body, lambda: parse_images(body, use_cases.settings.max_images))
    options = parse_options(EmbedOptions, body)
    is_binary = _BINARY in request.headers.get("accept", "")
    command = EmbedImages(images, all_or_nothing=is_binary)
    result = await run_until_disconnect(request, use_cases.inference.embed(command))
    if is_binary:
        buffer = io.BytesIO()
        vectors = [one for one in result.outcomes if not isinstance(one, ItemFailure)]  # all of them
        np.save(buffer, np.stack(vectors), allow_pickle=False)
        return Response(buffer.getbuffer(), media_type=_BINARY)
    status = 207 if any(isinstance(one, ItemFailure) for one in result.outcomes) else 200
    return await respond(lambda: embeddings_view(result, options.encoding), len(result.outcomes), status)
