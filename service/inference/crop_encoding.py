"""Encodes enrolled crops for storage: always a new JPEG of the decoded pixels, never the bytes that a client sent.

The JPEG holds nothing but pixels: no location, time, camera, thumbnail or colour profile, and no content that another
decoder could read in another way.
"""

from io import BytesIO

from PIL import Image

from bundle import DEFAULT_LIMITS, ImageArray

MAX_SIDE = 1024  # pixels; more than twice the input height of common networks
_QUALITY = 95
_NO_SUBSAMPLING = 0  # 4:4:4: crops are small, and the colour of clothes tells persons apart


def encode_crop(pixels: ImageArray) -> bytes:
    """The (h, w, 3) uint8 RGB pixels of a crop as JPEG, scaled down if a side is longer than `MAX_SIDE`."""
    image = Image.fromarray(pixels)
    if max(image.size) > MAX_SIDE:
        scale = MAX_SIDE / max(image.size)
        min_side = DEFAULT_LIMITS.min_side  # the shorter side of a very long crop must stay decodable
        width, height = (max(min_side, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    stream = BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY, subsampling=_NO_SUBSAMPLING)
    return stream.getvalue()
