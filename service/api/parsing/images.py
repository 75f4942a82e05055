"""Images and vectors out of request members."""

import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from bundle import CorruptImage, ImageError
from service.api.parsing.body import Body
from service.api.parsing.json_text import VALUES_PER_CROP, parse_json
from service.core.errors import BodyTooLarge, InvalidRequest, UnusableImages
from service.core.types import Image, Vectors
from service.core.vectors import CANNOT_NORMALIZE, is_undefined, normalize_rows
from service.inference.crop import Box

T = TypeVar("T")

_LEAST_MEAN = 1e-5  # of the length; under it the direction is that of rounding
_LONGEST = 1e9  # pixels


def image_from_base64(text: Any) -> Image:
    """The bytes, or the error of this one image."""
    if not isinstance(text, str):
        raise InvalidRequest("an image in JSON is a base64 string")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        return CorruptImage(f"the image is not base64 ({error}); encode it without line breaks or a data: prefix")


def images_from_base64(texts: Any, name: str, most: int) -> list[Image]:
    """The images of a JSON member. Raises InvalidRequest, or BodyTooLarge for more than `most`."""
    if not isinstance(texts, list):
        raise InvalidRequest(f"`{name}` is a list of base64 strings")
    require_count(texts, name, most)
    return [image_from_base64(text) for text in texts]


def require_count(items: Sequence[Any], name: str, most: int) -> None:
    """Raises BodyTooLarge for more than `most` items: before each of them costs anything."""
    if len(items) > most:
        raise BodyTooLarge(f"{len(items)} {name} in one request; at most {most} are accepted")


@dataclass(frozen=True, slots=True)
class ImageInput:
    """Images, each a crop; or one frame with the boxes of crops in it."""

    images: list[Image]
    boxes: list[Box] | None

    def __len__(self) -> int:
        return len(self.images if self.boxes is None else self.boxes)

    @property
    def names(self) -> list[str]:
        """Where each crop stands in the request."""
        return [f"{'images' if self.boxes is None else 'boxes'}.{index}" for index in range(len(self))]


def parse_images(body: Body, most: int) -> ImageInput:
    """The crops of a body, out of its members where it is JSON; at most `most` of them.

    Raises InvalidRequest, also without any, or BodyTooLarge.
    """
    images = images_from_base64(body.members.pop("images", []), "images", most) if body.is_json else body.images
    if not images:
        raise InvalidRequest("there is no image in the request")
    boxes = None
    if "boxes" in body.members:
        value = body.members.pop("boxes")
        if "boxes" in body.texts and isinstance(value, str):  # of a form or the query
            value = parse_json(value, most * VALUES_PER_CROP, "`boxes`")
        boxes = _boxes(value, most)
    if boxes is not None and len(images) != 1:
        raise InvalidRequest(f"`boxes` are of one frame, and there are {len(images)} images")
    return ImageInput(images, boxes)


def _boxes(value: Any, most: int) -> list[Box]:
    if not isinstance(value, list) or not value:
        raise InvalidRequest("`boxes` is a list with at least one box")
    require_count(value, "boxes", most)
    for box in value:
        if not isinstance(box, list) or len(box) != 4 or not all(_is_length(number) for number in box):
            raise InvalidRequest("a box is a list of four numbers: x, y, width, height in pixels")
    return [(x, y, width, height) for x, y, width, height in value]


def _is_length(number: Any) -> bool:
    return type(number) in (int, float) and abs(number) <= _LONGEST


def unit_vector(value: Any, dim: int) -> Vectors:
    """A (D,) unit vector from a list of numbers or base64 float32, little-endian. Raises InvalidRequest."""
    numbers: npt.NDArray[np.floating]
    try:
        if isinstance(value, str):
            numbers = np.frombuffer(binascii.a2b_base64(value, strict_mode=True), "<f4")
        elif isinstance(value, list) and set(map(type, value)) <= {int, float}:
            numbers = np.array(value, np.float64)
        else:
            raise ValueError("here is something else")
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"a vector is a list of numbers or base64 float32 ({error})") from None
    if numbers.shape != (dim,):
        raise InvalidRequest(f"the vector has shape {list(numbers.shape)}; this model's have [{dim}]")
    return _direction(numbers, f"the vector cannot be normalised: {CANNOT_NORMALIZE}; send a vector of unit length")


def mean_direction(vectors: list[Vectors]) -> Vectors:
    """The direction of the mean of (D,) unit vectors. Raises InvalidRequest where they cancel out."""
    if len(vectors) == 1:
        return vectors[0]
    mean = np.stack(vectors).mean(0, np.float64)
    opposite = "the images point in opposite directions and have no mean"
    if np.linalg.norm(mean) < _LEAST_MEAN:
        raise InvalidRequest(opposite)
    return _direction(mean, opposite)


def _direction(numbers: npt.NDArray[np.floating], otherwise: str) -> Vectors:
    rows = normalize_rows(numbers[None])
    if is_undefined(rows)[0]:
        raise InvalidRequest(otherwise)
    vector: Vectors = rows[0]
    return vector


def require_all(outcomes: Sequence[T | ImageError], names: Sequence[str]) -> list[T]:
    """What came of the images, where all can be used. Raises the image's own error, or UnusableImages for several.

    `names` says where each stood in the request.
    """
    usable = [outcome for outcome in outcomes if not isinstance(outcome, ImageError)]
    if len(usable) == len(outcomes):
        return usable
    if len(outcomes) == 1 and isinstance(outcomes[0], ImageError):
        raise outcomes[0]
    failures = [
        {"at": name, "problem": str(outcome), "code": outcome.code}
        for name, outcome in zip(names, outcomes, strict=True)
        if isinstance(outcome, ImageError)
    ]
    raise UnusableImages(
        f"{len(failures)} of {len(outcomes)} images cannot be used: {failures[0]['problem']}", failures
    )


def some_usable(outcomes: Sequence[T | ImageError], names: Sequence[str]) -> None:
    """Raises as `require_all` where no image can be used."""
    if all(isinstance(outcome, ImageError) for outcome in outcomes):
        require_all(outcomes, names)
