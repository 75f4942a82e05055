"""JPEG decoded by libjpeg-turbo without Pillow, for the files where the pixels equal Pillow's to the bit.

Pillow 13.0 embeds libjpeg-turbo 3.2.0, simplejpeg 1.9 embeds 3.1.2. Both use the accurate DCT and smooth ("fancy")
chroma upsampling, and then give identical pixels. A Pillow that was built on another libjpeg may not: `equals_pillow`
compares the two once in a process, and Pillow decodes everything where they differ.

Every file with a warning or an error is refused here, so that Pillow decides about it and errors are Pillow's.
"""

from functools import cache
from io import BytesIO
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

_GREY, _COLOUR = "Gray", ("YCbCr", "RGB")
_SUBSAMPLINGS = ("444", "422", "420", "Gray")


class JpegHeader(NamedTuple):
    """Width and height in pixels, and whether there is one channel instead of three."""

    size: tuple[int, int]
    grey: bool


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """The header, or None where Pillow must read the file: it is CMYK or not a valid JPEG."""
    if not equals_pillow():
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except Exception:  # mostly ValueError, but hostile bytes may raise anything
        return None
    return JpegHeader((width, height), space == _GREY) if space == _GREY or space in _COLOUR else None


def decode_jpeg(data: bytes) -> npt.NDArray[np.uint8] | None:
    """(height, width, 3) uint8 RGB, or None where Pillow must decode the file. It cannot be interrupted."""
    try:
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data)
    except Exception:  # as above
        return None
    return pixels


@cache
def equals_pillow() -> bool:
    """Whether both decoders give the same pixels here, for a small picture in each kind of subsampling."""
    noise = np.random.default_rng(0).integers(0, 256, (37, 43, 3), dtype=np.uint8)
    for subsampling in _SUBSAMPLINGS:
        data = simplejpeg.encode_jpeg(noise, quality=75, colorsubsampling=subsampling)
        with Image.open(BytesIO(data), formats=["JPEG"]) as image:
            if not np.array_equal(np.asarray(image.convert("RGB")), simplejpeg.decode_jpeg(data)):
                return False
    return True
