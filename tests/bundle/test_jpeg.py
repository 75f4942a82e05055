"""JPEG without Pillow: the same pixels as Pillow's to the bit, the same refusals, for thousands of generated files."""

from collections.abc import Iterator
from io import BytesIO
from itertools import product

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from bundle import CorruptImage, ImageArray, ImageError, ImageLimits, decode_image, jpeg, load_crop, preprocessing
from tests.support.pictures import encode, person

QUALITIES = (5, 40, 75, 95, 100)
SIZES = ((16, 16), (17, 31), (16, 65), (33, 16), (40, 24), (57, 19), (128, 64), (71, 49))


def by_pillow(data: bytes) -> ImageArray:
    """What the product promises, by Pillow alone."""
    with Image.open(BytesIO(data), formats=["JPEG"]) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def pictures() -> Iterator[Image.Image]:
    """Noise, smooth gradients, hard edges and people, in even and odd sizes."""
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        yield Image.fromarray(noise)
        yield Image.fromarray(noise[: height // 8 + 1, : width // 8 + 1]).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        yield Image.fromarray(noise // 128 * 255)
        yield person(height, height=height, width=width)


def jpegs() -> Iterator[bytes]:
    """Every picture in each subsampling and quality, baseline and progressive, and as grey."""
    for number, image in enumerate(pictures()):
        for quality, sampling, progressive in product(QUALITIES, ("4:4:4", "4:2:2", "4:2:0", "grey"), (False, True)):
            options = {"quality": quality, "progressive": progressive, "restart_marker_blocks": number % 3}
            if sampling == "grey":
                yield encode(image.convert("L"), "JPEG", **options)
            else:
                yield encode(image, "JPEG", subsampling=sampling, **options)
        for quality, sampling in product(QUALITIES, ("444", "422", "420", "440", "411", "Gray")):
            yield simplejpeg.encode_jpeg(np.asarray(image), quality=quality, colorsubsampling=sampling)
        yield encode(image, "JPEG", keep_rgb=True)


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    return list(jpegs())


def test_pixels_are_pillows_to_the_bit(files: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(files) > 2000
    assert jpeg.equals_pillow()
    monkeypatch.setattr(preprocessing, "_open", None)  # and no file needs Pillow
    for data in files:
        np.testing.assert_array_equal(decode_image(data), by_pillow(data), strict=True)


def test_incomplete_and_damaged_files_are_read_or_refused_as_by_pillow(files: list[bytes]) -> None:
    rng = np.random.default_rng(1)
    refused = 0
    for data in files[::2]:
        damaged = bytearray(data)
        damaged[rng.integers(2, len(data))] ^= 1 << int(rng.integers(8))
        scan = data.rfind(b"\xff\xda")  # without the last scan, a progressive file is complete but coarse
        for case in (bytes(damaged), data[: int(rng.integers(2, len(data)))], data[:-2], data[:scan] + b"\xff\xd9"):
            try:
                expected = by_pillow(case)
            except Exception:
                refused += 1
                with pytest.raises(ImageError):
                    decode_image(case)
            else:
                if min(expected.shape[:2]) >= 16:
                    np.testing.assert_array_equal(decode_image(case), expected, strict=True)
    assert refused > 500


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_that_turns_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(person(3), "JPEG", exif=exif)
    np.testing.assert_array_equal(decode_image(data), by_pillow(data))
    xmp = f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
    data = encode(person(3), "JPEG", xmp=xmp)
    np.testing.assert_array_equal(decode_image(data), by_pillow(data))


def test_cmyk_stays_with_pillow() -> None:
    data = encode(person(3).convert("CMYK"), "JPEG")
    np.testing.assert_array_equal(decode_image(data), by_pillow(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(64, 32), (128, 64), (384, 128), (100, 90)])
def test_resizing_is_pillows_to_the_bit(kind: str, size: tuple[int, int]) -> None:
    data = encode(person(5), kind)
    height, width = size
    image = Image.open(BytesIO(data)).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(load_crop(data, height, width), np.asarray(image), strict=True)


def test_a_pillow_with_other_pixels_decodes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that was built on another libjpeg."""
    data = encode(person(5), "JPEG")
    other = np.asarray(person(6))
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda _: other)
    jpeg.equals_pillow.cache_clear()
    try:
        np.testing.assert_array_equal(decode_image(data), by_pillow(data))
    finally:
        jpeg.equals_pillow.cache_clear()


def test_a_file_with_two_sizes_is_refused() -> None:
    """EXIF makes Pillow read the header; its size must be the one that is decoded."""
    exif = Image.Exif()
    exif[0x010E] = "crop"
    large, small = (encode(Image.new("RGB", size), "JPEG", exif=exif) for size in ((400, 400), (40, 80)))

    def segment(data: bytes, marker: bytes) -> bytes:
        start = data.index(marker)
        return data[start : start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")]

    frame = segment(small, b"\xff\xc0")
    two = large.replace(segment(large, b"\xff\xc0"), segment(large, b"\xff\xc0") + frame)
    with pytest.raises(CorruptImage):
        decode_image(two, ImageLimits(max_pixels=10_000))
