"""From the bytes of a picture to the pixels the network sees: one function for training, export and service.

Shapes: H, W are the network's input height and width; an image is uint8 RGB, rows first.
"""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from bundle.errors import CorruptImage, ImageTooLarge, ImageTooSmall, UnsupportedImage

ImageArray = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a picture may cost before and after it is decoded."""

    max_bytes: int = 16 * 2**20
    max_pixels: int = 40_000_000
    min_side: int = 16


DEFAULT_LIMITS = ImageLimits()


def decode_image(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> ImageArray:
    """Decode the first frame of an encoded picture, upright, as (height, width, 3) uint8 RGB.

    The format is found from the content, never from a name. Pixels are counted from the header, before anything
    is decoded. The EXIF orientation is applied and all other metadata dropped.

    Raises UnsupportedImage, CorruptImage, ImageTooLarge or ImageTooSmall.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"the image has {len(data):,} bytes; at most {limits.max_bytes:,} are accepted")
    try:
        image: Image.Image = Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise UnsupportedImage(
            f"these {len(data):,} bytes are not a {', '.join(FORMATS)} image; convert it to one of them"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLarge(f"the image has more than {limits.max_pixels:,} pixels; scale it down") from None
    except Exception as error:  # a header can break a parser in any way; it must break nothing else
        raise CorruptImage(f"the image header cannot be read ({error}); send the original file") from error
    with image:
        width, height = image.size
        if width * height > limits.max_pixels:
            raise ImageTooLarge(
                f"the image is {width}x{height} = {width * height:,} pixels; at most {limits.max_pixels:,} are accepted"
            )
        if min(width, height) < limits.min_side:
            raise ImageTooSmall(f"the image is {width}x{height}; each side must have at least {limits.min_side} pixels")
        try:
            return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
        except Exception as error:  # decoders raise OSError, SyntaxError, struct.error and more on hostile bytes
            raise CorruptImage(f"the image does not decode ({error}); it may be truncated") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow clips at 255 instead of scaling
        grey = np.clip(np.asarray(image), 0, 0xFFFF).astype(np.uint32)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def resize_image(image: ImageArray, height: int, width: int) -> ImageArray:
    """Resize an (h, w, 3) uint8 image to (height, width, 3) by antialiased bilinear interpolation.

    The aspect ratio is not kept: the field's networks are trained on crops stretched to one shape.
    """
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def load_crop(data: bytes, height: int, width: int, limits: ImageLimits = DEFAULT_LIMITS) -> ImageArray:
    """Encoded picture -> the (height, width, 3) uint8 RGB array the network takes. Raises as `decode_image`."""
    return resize_image(decode_image(data, limits), height, width)
