"""Images that are small and expensive to decode are refused by their structure, before a decoder sees them."""

import time
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from bundle import ImageLimits, ImageTooComplex, ImageTooLarge, UnsupportedImage, decode_image, read_header
from bundle.image_structure import MAX_CHUNKS, MAX_SCANS, MAX_SEGMENTS, read_structure
from tests.support.pictures import encode, fill_bytes, many_chunks, many_scans, many_segments, person, run_length_bmp


def scans(data: bytes) -> int:
    """By the definition of JPEG: start-of-scan markers. There is no thumbnail in these files to count with them."""
    return data.count(b"\xff\xda")


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"quality": 100}, {"optimize": True}, {"restart_marker_blocks": 1}])
def test_passes_of_a_jpeg_are_its_scans(progressive: bool, mode: str, options: dict[str, int]) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)).convert(mode)
    data = encode(noise, "JPEG", progressive=progressive, **options)
    assert read_structure(data).passes == scans(data)
    assert (read_structure(data).passes > 1) == progressive


def test_a_marker_inside_metadata_is_no_scan() -> None:
    exif = Image.Exif()
    exif[0x010E] = "\xff\xda" * 200
    data = encode(person(1), "JPEG", exif=exif, comment=b"\xff\xda\x00\x02" * 300)
    assert read_structure(data).passes == 1
    assert decode_image(data).shape == (128, 64, 3)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_other_formats_take_one_pass(kind: str) -> None:
    assert read_structure(encode(person(1), kind)).passes == 1


def test_scans_are_bounded_in_number_and_together_with_pixels() -> None:
    few = many_scans(MAX_SCANS - 20, 64, 64)
    assert scans(few) <= MAX_SCANS
    assert decode_image(few).shape == (64, 64, 3)
    with pytest.raises(ImageTooComplex, match=f"more than {MAX_SCANS} scans"):
        decode_image(many_scans(5000, 64, 64))
    with pytest.raises(ImageTooComplex, match="scans of 9,000,000 pixels"):
        decode_image(many_scans(MAX_SCANS - 20, 3000, 3000))


def test_a_marker_without_length_hides_no_scans() -> None:
    """After TEM come no length and no content; what its "length" would skip are scans."""
    data = many_scans(2000, 64, 64)
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    with pytest.raises(ImageTooComplex, match=f"more than {MAX_SCANS} scans"):
        decode_image(data[:second] + b"\xff\x01" + data[second:])


@pytest.mark.parametrize(
    ("made", "most"), [(many_segments, MAX_SEGMENTS - 20), (fill_bytes, 1000), (many_chunks, MAX_CHUNKS - 20)]
)
def test_the_bytes_that_a_parser_keeps_or_skips_are_bounded(made, most: int) -> None:
    assert decode_image(made(most)).shape == (128, 64, 3)
    with pytest.raises(ImageTooComplex, match="save it"):
        decode_image(made(most + 200))


def test_a_run_length_encoded_bmp_is_not_read() -> None:
    data = run_length_bmp(64, 64)
    assert Image.open(BytesIO(data)).size == (64, 64)  # it is one, by Pillow
    with pytest.raises(UnsupportedImage, match="run-length"):
        decode_image(data)


def test_memory_is_known_from_the_header() -> None:
    limits = ImageLimits(max_decode_bytes=16 * 2**20)
    million = Image.new("RGB", (1000, 1000))
    assert decode_image(encode(million), limits).shape == (1000, 1000, 3)
    with pytest.raises(ImageTooLarge, match="WEBP of 1,000,000 pixels and needs 18 MiB"):
        read_header(encode(million, "WEBP"), limits)


def test_decoding_ends_at_its_time_limit() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8))
    for kind in ("JPEG", "PNG"):
        encoded = read_header(encode(noise, kind), ImageLimits(max_seconds=1e-9))
        time.sleep(0.001)
        with pytest.raises(ImageTooComplex, match="did not decode within"):
            encoded.decode()
