"""From bytes to pixels: colours kept, orientation applied, and everything hostile refused."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from bundle import (
    CorruptImage,
    ImageLimits,
    ImageTooLarge,
    ImageTooSmall,
    UnsupportedImage,
    decode_image,
    load_crop,
    resize_image,
)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def gradient(height: int = 40, width: int = 20) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 5, columns * 10, (rows + columns) * 3], axis=2).astype(np.uint8)


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_give_back_every_pixel(kind: str, options: dict[str, object]) -> None:
    np.testing.assert_array_equal(decode_image(encode(Image.fromarray(gradient()), kind, **options)), gradient())


def test_a_jpeg_gives_nearly_the_same_pixels() -> None:
    decoded = decode_image(encode(Image.fromarray(gradient()), "JPEG", quality=95, subsampling=0))
    assert np.abs(decoded.astype(int) - gradient()).mean() < 2


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a.transpose(1, 0, 2)[::-1, ::-1]),
        (8, lambda a: np.rot90(a)),
    ],
)
def test_the_exif_orientation_is_applied(orientation: int, upright) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(encode(Image.fromarray(gradient()), "PNG", exif=exif))
    np.testing.assert_array_equal(decoded, upright(gradient()))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_metadata_that_cannot_be_read_is_ignored(kind: str) -> None:
    image = Image.fromarray(gradient())
    np.testing.assert_array_equal(decode_image(encode(image, kind, exif=b"junk")), decode_image(encode(image, kind)))


def test_every_colour_mode_becomes_rgb() -> None:
    image = Image.fromarray(gradient())
    grey = np.asarray(image.convert("L"))
    np.testing.assert_array_equal(decode_image(encode(image.convert("L"))), np.repeat(grey[..., None], 3, axis=2))
    grey16 = Image.fromarray(grey.astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode_image(encode(grey16)), np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_array_equal(decode_image(encode(image.convert("RGBA"))), gradient())
    palette = image.quantize(16)
    np.testing.assert_array_equal(decode_image(encode(palette)), np.asarray(palette.convert("RGB")))
    transparent = decode_image(encode(palette, transparency=3))
    np.testing.assert_array_equal(transparent, np.asarray(palette.convert("RGB")))
    cmyk = decode_image(encode(image.convert("CMYK"), "JPEG", quality=100, subsampling=0))
    assert np.abs(cmyk.astype(int) - gradient()).mean() < 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    frames = [Image.fromarray(gradient()), Image.fromarray(255 - gradient())]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode_image(data), gradient())


@pytest.mark.parametrize("data", [b"", b"text", b"\x89PNG\r\n\x1a\n", bytes(range(256)) * 20])
def test_data_that_is_no_image_is_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedImage, match="convert it"):
        decode_image(data)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PPM", "ICO"])
def test_other_formats_are_unsupported_even_if_pillow_reads_them(kind: str) -> None:
    with pytest.raises(UnsupportedImage):
        decode_image(encode(Image.fromarray(gradient(64, 64)), kind))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_truncated_image_is_corrupt_at_any_length(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), kind)
    for part in (0.2, 0.5, 0.8):
        with pytest.raises(CorruptImage):
            decode_image(data[: int(part * len(data))])


def test_sizes_are_checked_before_decoding() -> None:
    limits = ImageLimits(max_bytes=10_000, max_pixels=10_000, min_side=16)
    with pytest.raises(ImageTooLarge, match="10,001 bytes"):
        decode_image(b"x" * 10_001, limits)
    with pytest.raises(ImageTooLarge, match="200x60 = 12,000 pixels"):
        decode_image(encode(Image.new("RGB", (200, 60))), limits)
    with pytest.raises(ImageTooSmall, match="15x60"):
        decode_image(encode(Image.new("RGB", (15, 60))), limits)
    assert decode_image(encode(Image.new("RGB", (16, 60))), limits).shape == (60, 16, 3)


def test_shrinking_averages_pixels() -> None:
    """Antialiased: a fine chessboard becomes grey, it does not alias into black or white."""
    chessboard = (np.indices((128, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = resize_image(np.repeat(chessboard[..., None], 3, axis=2), 32, 16)
    assert small.shape == (32, 16, 3)
    assert np.abs(small.astype(int) - 127).max() <= 12


def test_resizing_is_bilinear_between_pixels() -> None:
    ramp = np.repeat(np.array([0, 100, 200], np.uint8)[None, :, None], 3, axis=0).repeat(3, axis=2)
    wide = resize_image(ramp, 3, 6)[0, :, 0]
    np.testing.assert_allclose(wide, [0, 25, 75, 125, 175, 200], atol=1)


def test_a_crop_of_the_right_size_is_not_touched() -> None:
    np.testing.assert_array_equal(load_crop(encode(Image.fromarray(gradient())), 40, 20), gradient())
    assert load_crop(encode(Image.fromarray(gradient())), 24, 12).shape == (24, 12, 3)
