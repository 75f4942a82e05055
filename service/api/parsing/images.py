"""Images, boxes and vectors in the members of a request."""

import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np

from bundle import CorruptImage
from service.api.parsing.body import Body
from service.api.parsing.json_text import VALUES_PER_CROP, parse_json
from service.core.errors import BodyTooLarge, InvalidRequest
from service.core.types import Image
from service.galleries.commands import Box, Images, Numbers

_MAX_LENGTH = 1e9  # pixels


def image_from_base64(text: Any) -> Image:
    """The bytes of an image, or its error."""
    if not isinstance(text, str):
        raise InvalidRequest("an image in JSON is a base64 string")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        return CorruptImage(f"the image is not base64 ({error}); encode it without line breaks or a data: prefix")


def images_from_base64(texts: Any, member: str, max_images: int) -> list[Image]:
    """The images of a JSON member. Raises InvalidRequest, or BodyTooLarge for more than `max_images`."""
    if not isinstance(texts, list):
        raise InvalidRequest(f"`{member}` is a list of base64 strings")
    require_count(texts, member, max_images)
    return [image_from_base64(text) for text in texts]


def require_count(items: Sequence[Any], member: str, max_items: int) -> None:
    """Raises BodyTooLarge for more than `max_items` items, before any of them is parsed."""
    if len(items) > max_items:
        raise BodyTooLarge(f"{len(items)} {member} in one request; at most {max_items} are accepted")


def parse_images(body: Body, max_images: int) -> Images:
    """The images of a body, and its boxes. Raises InvalidRequest, also if there is no image, or BodyTooLarge."""
    images = images_from_base64(body.members.pop("images", []), "images", max_images) if body.is_json else body.images
    if not images:
        raise InvalidRequest("there is no image in the request")
    boxes = None
    if "boxes" in body.members:
        value = body.members.pop("boxes")
        if "boxes" in body.texts and isinstance(value, str):  # of a form or the query
            value = parse_json(value, max_images * VALUES_PER_CROP, "`boxes`")
        boxes = _parse_boxes(value, max_images)
    if boxes is not None and len(images) != 1:
        raise InvalidRequest(f"`boxes` belong to one frame, and there are {len(images)} images")
    return Images(tuple(images), boxes)


def _parse_boxes(value: Any, max_boxes: int) -> tuple[Box, ...]:
    if not isinstance(value, list) or not value:
        raise InvalidRequest("`boxes` is a list with at least one box")
    require_count(value, "boxes", max_boxes)
    for box in value:
        if not isinstance(box, list) or len(box) != 4 or not all(_is_length(number) for number in box):
            raise InvalidRequest("a box is a list of four numbers: x, y, width, height in pixels")
    return tuple((x, y, width, height) for x, y, width, height in value)


def _is_length(number: Any) -> bool:
    return type(number) in (int, float) and abs(number) <= _MAX_LENGTH


def parse_vector(value: Any) -> Numbers:
    """The numbers of a vector: a list, or base64 of float32 in little-endian order. Raises InvalidRequest."""
    try:
        if isinstance(value, str):
            return np.frombuffer(binascii.a2b_base64(value, strict_mode=True), "<f4")
        if isinstance(value, list) and set(map(type, value)) <= {int, float}:
            return np.array(value, np.float64)
        raise ValueError(f"it is a JSON {type(value).__name__}")
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"a vector is a list of numbers or base64 float32 ({error})") from None
