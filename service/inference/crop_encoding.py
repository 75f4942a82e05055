"""The picture of an enrolled crop, where a gallery keeps it: made anew from its pixels, never the bytes that came.

A JPEG that this module wrote has the pixels and nothing else: no place, time, camera, thumbnail or profile, and no
second meaning that a file of somebody else's may have.
"""

from io import BytesIO

from PIL import Image

from bundle import DEFAULT_LIMITS, ImageArray

LONGEST = 1024  # pixels a side: over twice what a network of the field sees
_QUALITY = 95
_FULL_COLOUR = 0  # 4:4:4; crops are small, and clothes are told apart by their colour


def encode_crop(pixels: ImageArray) -> bytes:
    """The (h, w, 3) uint8 RGB pixels of a crop as JPEG, scaled down where a side is longer than `LONGEST`."""
    image = Image.fromarray(pixels)
    if max(image.size) > LONGEST:
        scale = LONGEST / max(image.size)
        least = DEFAULT_LIMITS.min_side  # or nothing could decode a very long one again
        width, height = (max(least, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    stream = BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY, subsampling=_FULL_COLOUR)
    return stream.getvalue()
