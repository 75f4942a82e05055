"""From the bytes of a picture to the pixels the network sees: one function for training, export and service.

    bytes -> read_header (limits, nothing decoded) -> EncodedImage.decode -> resize_image -> (H, W, 3) uint8 RGB

Shapes: H, W are the network's input height and width; an image is uint8 RGB, rows first.
"""

import time
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from bundle.errors import CorruptImage, ImageError, ImageTooComplex, ImageTooLarge, ImageTooSmall, UnsupportedImage
from bundle.image_structure import read_structure
from bundle.jpeg import decode_jpeg, read_jpeg_header

ImageArray = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")

_MAX_PIXEL_PASSES = 500_000_000  # pixels times scans of a JPEG: about a second on one core
_MAX_UNTIMED_PASSES = 2**21  # of the same: 50 ms at most, which the time limit does not interrupt
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

    def __init__(self, data: bytes, limits: ImageLimits) -> None:
        """Raises as `read_header`."""
        structure = read_structure(data)
        self._data, self._limits = data, limits
        self._stream = _TimedStream(data)
        self._jpeg = read_jpeg_header(data) if structure.jpeg else None
        self._image: Image.Image | None = None  # opened only if libjpeg-turbo's header does not say everything
        if self._jpeg is None or structure.metadata:
            self._image = _open(self._stream, limits)
            kind, self._size, pixel_bytes = self._image.format, self._image.size, _bytes_per_pixel(self._image)
        else:
            kind, self._size = "JPEG", self._jpeg.size
            pixel_bytes = _CONVERTED_BYTES if self._jpeg.grey else _RGB_BYTES
        width, height = self._size
        self.decode_bytes = pixel_bytes * width * height
        """Upper bound of the memory that `decode` needs at its peak, in bytes."""
        self._pixel_passes = structure.passes * width * height
        _check_size(kind, width, height, structure.passes, self.decode_bytes, limits)

    def decode(self) -> ImageArray:
        """The first frame, upright, as (height, width, 3) uint8 RGB. May be called once.

        Raises CorruptImage, or ImageTooComplex where it takes longer than the limit.
        """
        return np.asarray(self._decode())

    def decode_resized(self, height: int, width: int) -> ImageArray:
        """As `decode` and `resize_image`, without a copy between the two."""
        return _resize(self._decode(), height, width)

    def _decode(self) -> ImageArray | Image.Image:
        try:
            if self._is_upright_jpeg() and self._pixel_passes <= _MAX_UNTIMED_PASSES:
                pixels = decode_jpeg(self._data)
                if pixels is not None:
                    return pixels
            with self._image or _open(self._stream, self._limits) as image:
                if image.size != self._size:
                    raise CorruptImage("the image has several headers that differ; send the original file")
                self._stream.start(self._limits.max_seconds)
                image.load()
                if _orientation(image) != 1:
                    ImageOps.exif_transpose(image, in_place=True)
                return _to_rgb(image)
        except ImageError:
            raise
        except Exception as error:  # decoders raise OSError, SyntaxError, struct.error and more on hostile bytes
            raise CorruptImage(f"the image does not decode ({error}); it may be truncated") from error

    def _is_upright_jpeg(self) -> bool:
        """Whether libjpeg-turbo can decode it: EXIF does not turn it, and both headers agree where both were read."""
        if self._jpeg is None or self._image is None:
            return self._jpeg is not None
        return self._image.format == "JPEG" and self._image.size == self._jpeg.size and _orientation(self._image) == 1


def read_header(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> EncodedImage:
    """Open an encoded picture and check it against every limit, without decoding its pixels.

    The format is found from the content, never from a name. Pixels, JPEG scans and the memory that decoding needs are
    known from the header.

    Raises UnsupportedImage, CorruptImage, ImageTooLarge, ImageTooSmall or ImageTooComplex.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"the image has {len(data):,} bytes; at most {limits.max_bytes:,} are accepted")
    return EncodedImage(data, limits)


def _open(stream: BytesIO, limits: ImageLimits) -> Image.Image:
    try:
        return Image.open(stream, formats=FORMATS)
    except UnidentifiedImageError:
        raise UnsupportedImage(
            f"these {len(stream.getvalue()):,} bytes are not a {', '.join(FORMATS)} image; convert it to one of them"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLarge(f"the image has more than {limits.max_pixels:,} pixels; scale it down") from None
    except Exception as error:  # a header can break a parser in any way; it must break nothing else
        raise CorruptImage(f"the image header cannot be read ({error}); send the original file") from error


def _check_size(kind: str | None, width: int, height: int, passes: int, decode_bytes: int, limits: ImageLimits) -> None:
    pixels = width * height
    if pixels > limits.max_pixels:
        raise ImageTooLarge(
            f"the image is {width}x{height} = {pixels:,} pixels; at most {limits.max_pixels:,} are accepted"
        )
    if min(width, height) < limits.min_side:
        raise ImageTooSmall(f"the image is {width}x{height}; each side must have at least {limits.min_side} pixels")
    if decode_bytes > limits.max_decode_bytes:
        raise ImageTooLarge(
            f"the image is a {kind} of {pixels:,} pixels and needs {decode_bytes // 2**20} MiB to "
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
    return _resize(image, height, width)


def load_crop(data: bytes, height: int, width: int, limits: ImageLimits = DEFAULT_LIMITS) -> ImageArray:
    """Encoded picture -> the (height, width, 3) uint8 RGB array the network takes. Raises as `decode_image`."""
    return read_header(data, limits).decode_resized(height, width)


def _resize(image: ImageArray | Image.Image, height: int, width: int) -> ImageArray:
    if isinstance(image, np.ndarray):
        if image.shape[:2] == (height, width):
            return image
        image = Image.fromarray(image)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _orientation(image: Image.Image) -> object:
    """The EXIF orientation; 1, which is upright, without metadata or where it cannot be read, in every format alike."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except SyntaxError:  # Pillow's, for a header that is no TIFF header
        return 1


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
