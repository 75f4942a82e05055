"""From the bytes of a picture to the pixels the network sees: one function for training, export and service.

    bytes -> read_header (limits, nothing decoded) -> EncodedImage.decode -> resize_image -> (H, W, 3) uint8 RGB

Shapes: H, W are the network's input height and width; an image is uint8 RGB, rows first.
"""

import time
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from bundle.errors import CorruptImage, ImageError, ImageTooComplex, ImageTooLarge, ImageTooSmall, UnsupportedImage
from bundle.image_structure import count_passes

ImageArray = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")

_MAX_PIXEL_PASSES = 500_000_000  # pixels times scans of a JPEG: about a second on one core
# Peak memory while an image is decoded, in bytes a pixel, measured by benchmarks/inference/decode_memory.py
_WEBP_BYTES, _RGB_BYTES, _CONVERTED_BYTES = 19, 11, 15


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a picture may cost before and while it is decoded."""

    max_bytes: int = 16 * 2**20
    max_pixels: int = 40_000_000
    min_side: int = 16
    max_decode_bytes: int = 640 * 2**20
    max_seconds: float | None = None  # to decode it; None: as long as it takes


DEFAULT_LIMITS = ImageLimits()


class EncodedImage:
    """A picture whose header was read and is within its limits. Its pixels are not decoded yet."""

    def __init__(self, image: Image.Image, stream: "_TimedStream", limits: ImageLimits) -> None:
        self._image = image
        self._stream = stream
        self._limits = limits

    @property
    def decode_bytes(self) -> int:
        """Upper bound of the memory that `decode` needs at its peak, in bytes."""
        return _bytes_per_pixel(self._image) * self._image.width * self._image.height

    def decode(self) -> ImageArray:
        """The first frame, upright, as (height, width, 3) uint8 RGB. May be called once.

        Raises CorruptImage, or ImageTooComplex where it takes longer than the limit.
        """
        self._stream.start(self._limits.max_seconds)
        try:
            with self._image as image:
                _turn_upright(image)
                return np.asarray(_to_rgb(image))
        except ImageError:
            raise
        except Exception as error:  # decoders raise OSError, SyntaxError, struct.error and more on hostile bytes
            raise CorruptImage(f"the image does not decode ({error}); it may be truncated") from error


def read_header(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> EncodedImage:
    """Open an encoded picture and check it against every limit, without decoding its pixels.

    The format is found from the content, never from a name. Pixels, JPEG scans and the memory that decoding needs are
    known from the header.

    Raises UnsupportedImage, CorruptImage, ImageTooLarge, ImageTooSmall or ImageTooComplex.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"the image has {len(data):,} bytes; at most {limits.max_bytes:,} are accepted")
    passes = count_passes(data)
    stream = _TimedStream(data)
    try:
        image: Image.Image = Image.open(stream, formats=FORMATS)
    except UnidentifiedImageError:
        raise UnsupportedImage(
            f"these {len(data):,} bytes are not a {', '.join(FORMATS)} image; convert it to one of them"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLarge(f"the image has more than {limits.max_pixels:,} pixels; scale it down") from None
    except Exception as error:  # a header can break a parser in any way; it must break nothing else
        raise CorruptImage(f"the image header cannot be read ({error}); send the original file") from error
    encoded = EncodedImage(image, stream, limits)
    try:
        _check_size(encoded, image, passes, limits)
    except ImageError:
        image.close()
        raise
    return encoded


def _check_size(encoded: EncodedImage, image: Image.Image, passes: int, limits: ImageLimits) -> None:
    width, height = image.size
    pixels = width * height
    if pixels > limits.max_pixels:
        raise ImageTooLarge(
            f"the image is {width}x{height} = {pixels:,} pixels; at most {limits.max_pixels:,} are accepted"
        )
    if min(width, height) < limits.min_side:
        raise ImageTooSmall(f"the image is {width}x{height}; each side must have at least {limits.min_side} pixels")
    if encoded.decode_bytes > limits.max_decode_bytes:
        raise ImageTooLarge(
            f"the image is a {image.format} of {pixels:,} pixels and needs {encoded.decode_bytes // 2**20} MiB to "
            f"decode; at most {limits.max_decode_bytes // 2**20} MiB are used; scale it down"
        )
    if passes * pixels > _MAX_PIXEL_PASSES:
        raise ImageTooComplex(
            f"the image has {passes} scans of {pixels:,} pixels; save it as a baseline JPEG, or scale it down"
        )


def decode_image(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> ImageArray:
    """Decode the first frame of an encoded picture, upright, as (height, width, 3) uint8 RGB.

    The EXIF orientation is applied and all other metadata dropped. Raises as `read_header` and `EncodedImage.decode`.
    """
    return read_header(data, limits).decode()


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


def _turn_upright(image: Image.Image) -> None:
    """Apply the EXIF orientation. Metadata that cannot be read says nothing, in every format alike."""
    try:
        image.getexif()
    except SyntaxError:  # Pillow's, for a header that is no TIFF header
        return
    ImageOps.exif_transpose(image, in_place=True)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow clips at 255 instead of scaling
        grey = np.clip(np.asarray(image), 0, 0xFFFF).astype(np.uint32)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _bytes_per_pixel(image: Image.Image) -> int:
    if image.format == "WEBP":
        return _WEBP_BYTES
    return _RGB_BYTES if image.mode == "RGB" and "transparency" not in image.info else _CONVERTED_BYTES


class _TimedStream(BytesIO):
    """Pillow reads 64 KiB at a time while it decodes; the first read after the limit ends the work."""

    _seconds: float | None = None
    _until: float | None = None

    def start(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._until = None if seconds is None else time.monotonic() + seconds

    def read(self, size: int | None = -1) -> bytes:
        if self._until is not None and time.monotonic() > self._until:
            raise ImageTooComplex(f"the image did not decode within {self._seconds:g} s; scale it down")
        return super().read(size)
