"""Cuts the boxes of a detector out of a frame, by the same rule for every endpoint."""

from collections.abc import Sequence

from bundle import ImageArray, ImageError, ImageTooSmall
from service.core.errors import BoxOutOfBounds

Box = tuple[float, float, float, float]  # x, y, width, height in pixels, from the upper left corner


def crop_boxes(frame: ImageArray, boxes: Sequence[Box], min_side: int) -> list[ImageArray | ImageError]:
    """The pixels of each box of an (h, w, 3) uint8 frame, as views. Edges are rounded to the nearest pixel.

    A box that is not wholly inside the frame yields BoxOutOfBounds, one with a side below `min_side` ImageTooSmall.
    """
    return [_crop(frame, box, min_side) for box in boxes]


def _crop(frame: ImageArray, box: Box, min_side: int) -> ImageArray | ImageError:
    x, y, width, height = box
    rows, columns = frame.shape[:2]
    left, top, right, bottom = round(x), round(y), round(x + width), round(y + height)
    if min(right - left, bottom - top) < min_side:
        return ImageTooSmall(f"the box is {width:g}x{height:g}; each side must have at least {min_side} pixels")
    if left < 0 or top < 0 or right > columns or bottom > rows:
        return BoxOutOfBounds(
            f"the box from ({x:g}, {y:g}) to ({x + width:g}, {y + height:g}) is not within the frame, which has "
            f"{columns}x{rows} pixels when upright; clip it"
        )
    return frame[top:bottom, left:right]
