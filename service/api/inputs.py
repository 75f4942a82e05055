"""Images and vectors out of request members."""

import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np

from bundle import CorruptImage, ImageError
from service.body import Image
from service.engine import Vectors
from service.errors import InvalidRequest, UnusableImages

_UNIT = 1e-5


def image_from_base64(text: Any) -> Image:
    """The bytes, or the error of this one image."""
    if not isinstance(text, str):
        raise InvalidRequest("an image in JSON is a base64 string")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        return CorruptImage(f"the image is not base64 ({error}); encode it without line breaks or a data: prefix")


def images_from_base64(texts: Any, name: str) -> list[Image]:
    """The images of a JSON member."""
    if not isinstance(texts, list):
        raise InvalidRequest(f"`{name}` is a list of base64 strings")
    return [image_from_base64(text) for text in texts]


def unit_vector(value: Any, dim: int) -> Vectors:
    """A (D,) unit vector from a list of numbers or base64 float32, little-endian. Raises InvalidRequest."""
    vector: Vectors
    try:
        if isinstance(value, str):
            vector = np.frombuffer(binascii.a2b_base64(value, strict_mode=True), "<f4")
        else:
            vector = np.asarray(value, np.float32)
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"a vector is a list of numbers or base64 float32 ({error})") from None
    if vector.shape != (dim,):
        raise InvalidRequest(f"the vector has shape {list(vector.shape)}; this model's have [{dim}]")
    norm = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(norm) or norm == 0.0:
        raise InvalidRequest("the vector is zero or not finite, so it has no direction")
    return vector if abs(norm - 1.0) <= _UNIT else np.asarray(vector / norm, np.float32)


def fused(vectors: list[Vectors]) -> Vectors:
    """The direction of the mean of (D,) unit vectors. Raises InvalidRequest where they cancel out."""
    if len(vectors) == 1:
        return vectors[0]
    mean = np.mean(vectors, axis=0, dtype=np.float64)
    norm = np.linalg.norm(mean)
    if norm < _UNIT:
        raise InvalidRequest("the images point in opposite directions and have no mean")
    direction: Vectors = np.asarray(mean / norm, np.float32)
    return direction


def all_usable(outcomes: list[Vectors | ImageError], names: Sequence[str] = ()) -> list[Vectors]:
    """The vectors, where every image has one. Raises the image's own error, or UnusableImages for several images.

    `names` says where each stood in the request, where that is not `images.0`, `images.1` and so on.
    """
    vectors = [outcome for outcome in outcomes if not isinstance(outcome, ImageError)]
    if len(vectors) == len(outcomes):
        return vectors
    if len(outcomes) == 1 and isinstance(outcomes[0], ImageError):
        raise outcomes[0]
    failures = [
        {"at": names[index] if names else f"images.{index}", "problem": str(outcome), "code": outcome.code}
        for index, outcome in enumerate(outcomes)
        if isinstance(outcome, ImageError)
    ]
    raise UnusableImages(
        f"{len(failures)} of {len(outcomes)} images cannot be used: {failures[0]['problem']}", failures
    )


def some_usable(outcomes: list[Vectors | ImageError]) -> None:
    """Raises as `all_usable` where no image can be used."""
    if all(isinstance(outcome, ImageError) for outcome in outcomes):
        all_usable(outcomes)
