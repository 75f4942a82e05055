"""Synthetic images: persons as coloured blocks, never photographs."""

import struct
import zipfile
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image


def person(identity: int, shot: int = 0, height: int = 128, width: int = 64) -> Image.Image:
    """A figure of six coloured blocks; another shot of the same identity differs by noise and brightness."""
    colours = np.random.default_rng(identity).integers(20, 236, size=(6, 1, 3))
    blocks = np.repeat(np.repeat(colours, -(-height // 6), axis=0)[:height], width, axis=1).astype(np.float64)
    noise = np.random.default_rng((identity, shot))
    pixels = blocks * noise.uniform(0.9, 1.1) + noise.normal(0.0, 6.0, size=blocks.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """An image as the bytes of a file."""
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(identity: int, shot: int = 0) -> bytes:
    """A figure as the bytes of a PNG."""
    return encode(person(identity, shot))


def write_market(folder: Path, persons: int, cameras: int, shots: int = 1) -> Path:
    """A folder in the layout of Market-1501, with one distractor and one junk image."""
    folder.mkdir(parents=True, exist_ok=True)
    for identity in range(1, persons + 1):
        for camera in range(1, cameras + 1):
            for shot in range(shots):
                name = f"{identity:04d}_c{camera}s1_{shot:06d}_01.jpg"
                (folder / name).write_bytes(encode(person(identity, 100 * camera + shot), "JPEG", quality=95))
    (folder / "0000_c1s1_000000_01.jpg").write_bytes(encode(person(9000), "JPEG"))
    (folder / "-1_c1s1_000000_01.jpg").write_bytes(encode(person(9001), "JPEG"))
    return folder


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int = 50_000, height: int = 50_000) -> bytes:
    """A PNG of a few bytes whose header gives an enormous size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + _chunk(b"IEND", b"")
    )


def _resized(data: bytes, header: bytes, offset: int, size: bytes) -> bytes:
    """The file with another size in its header, `offset` bytes after the first occurrence of `header`."""
    start = data.index(header) + offset
    return data[:start] + size + data[start + len(size) :]


def bombs() -> dict[str, bytes]:
    """A small file of each format whose header gives an enormous size."""
    figure = person(1)
    canvas = (16_382).to_bytes(3, "little")
    animation = encode(figure, "WEBP", save_all=True, append_images=[person(2)], lossless=True)
    lossless = (16_382 | 16_382 << 14).to_bytes(4, "little")
    return {
        "bomb-png": bomb(),
        "bomb-png-under-pillows-limit": bomb(7000, 7000),
        "bomb-jpeg": _resized(encode(figure, "JPEG"), b"\xff\xc0", 5, struct.pack(">HH", 65_000, 65_000)),
        "bomb-webp": _resized(encode(figure, "WEBP"), b"\x9d\x01\x2a", 3, struct.pack("<HH", 16_383, 16_383)),
        "bomb-webp-lossless": _resized(encode(figure, "WEBP", lossless=True), b"VP8L", 9, lossless),
        "bomb-webp-animated": _resized(animation, b"VP8X", 12, canvas + canvas),
        "bomb-bmp": _resized(encode(figure, "BMP"), b"BM", 18, struct.pack("<ii", 50_000, 50_000)),
    }


def _with_chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG with an additional chunk after its header."""
    data = encode(person(1))
    return data[:33] + _chunk(kind, content) + data[33:]


def _archive() -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("program.exe", b"MZ")
    return stream.getvalue()


def _scrambled(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 0xFF for byte in data[middle : middle + 50]) + data[middle + 50 :]


def many_scans(count: int, width: int = 1000, height: int = 1000) -> bytes:
    """A progressive JPEG of a few kilobytes that repeats its last scan: each scan is a pass over all pixels."""
    data = encode(Image.new("RGB", (width, height), (90, 90, 90)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * count + data[-2:]


def many_segments(count: int) -> bytes:
    """A JPEG with `count` empty application segments. Pillow keeps an object for each."""
    data = encode(person(1), "JPEG")
    return data[:2] + b"\xff\xe5\x00\x02" * count + data[2:]


def fill_bytes(count: int) -> bytes:
    """A JPEG with `count` fill bytes before its first segment. Pillow skips them one at a time."""
    data = encode(person(1), "JPEG")
    return data[:2] + b"\xff" * count + data[2:]


def many_chunks(count: int) -> bytes:
    """A PNG with `count` empty private chunks. Pillow keeps an object for each."""
    data = encode(person(1))
    return data[:33] + _chunk(b"prVt", b"") * count + data[33:]


def run_length_bmp(width: int = 256, height: int = 256) -> bytes:
    """An 8-bit BMP of two-byte runs, which Pillow decodes in Python."""
    pixels = (b"\x01\x05" * width + b"\x00\x00") * height + b"\x00\x01"
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    start = 14 + 40 + 1024
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + bytes(1024) + pixels


REFUSALS = {"unsupported-image", "corrupt-image", "image-too-small", "image-too-large", "image-too-complex"}


@cache
def hostile() -> dict[str, tuple[bytes, int]]:
    """Images that the service refuses, and the HTTP status of each refusal."""
    jpeg, gif = encode(person(1), "JPEG"), encode(person(1).quantize(), "GIF")
    inflated = b"k\0\0" + zlib.compress(bytes(64 * 2**20), 9)
    return {
        "empty": (b"", 415),
        "text": (b"GET / HTTP/1.1\r\n\r\n", 415),
        "random": (np.random.default_rng(0).bytes(5000), 415),
        "gif": (gif, 415),
        "gif-bomb": (_resized(gif, b"GIF8", 6, struct.pack("<HH", 65_535, 65_535)), 415),
        "gif-script": (b"GIF89a/*" + gif[8:] + b"*/=1;alert(1)", 415),
        "zip-jpeg": (_archive() + jpeg, 415),
        "html-jpeg": (b"<html><script>alert(1)</script>" + jpeg, 415),
        "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>', 415),
        "pixel": (encode(Image.new("RGB", (1, 1))), 422),
        "line": (encode(Image.new("RGB", (20_000, 1))), 422),
        "truncated-jpeg": (jpeg[: len(jpeg) // 2], 422),
        "truncated-png": (encode(person(1))[:300], 422),
        "header-only": (encode(person(1))[:33], 415),
        "scrambled-png": (_scrambled(encode(person(1))), 422),
        "scan-bomb": (many_scans(5000), 422),
        "scan-bomb-large": (many_scans(90, 3000, 3000), 422),
        "segment-bomb": (many_segments(100_000), 422),
        "fill-bomb": (fill_bytes(1_000_000), 422),
        "chunk-bomb": (many_chunks(100_000), 422),
        "run-length-bmp": (run_length_bmp(), 415),
        "webp-bomb": (encode(Image.new("RGB", (6320, 6320)), "WEBP", lossless=True), 413),
        "text-bomb": (_with_chunk(b"zTXt", inflated), 422),
        "profile-bomb": (_with_chunk(b"iCCP", inflated), 422),
        **{name: (data, 413) for name, data in bombs().items()},
    }


def unusual() -> dict[str, bytes]:
    """Unusual images that the service accepts."""
    figure = person(1)
    grey16 = Image.fromarray(np.asarray(figure.convert("L")).astype(np.uint16) * 257)
    frames = [person(1), person(2)]
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    return {
        "cmyk": encode(figure.convert("CMYK"), "JPEG", quality=95),
        "grey": encode(figure.convert("L")),
        "grey16": encode(grey16),
        "palette": encode(figure.quantize(64)),
        "transparent-palette": encode(figure.quantize(64), transparency=0),
        "alpha": encode(figure.convert("RGBA")),
        "bilevel": encode(figure.convert("1")),
        "webp": encode(figure, "WEBP", lossless=True),
        "bmp": encode(figure, "BMP"),
        "animated-png": encode(frames[0], save_all=True, append_images=frames[1:]),
        "animated-webp": encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True),
        "turned": encode(figure, "JPEG", exif=exif),
        "trailing-bytes": encode(figure) + b"<?php echo 1; ?>" * 10,
        "jpeg-zip": encode(figure, "JPEG", quality=95) + _archive(),
        "long": encode(figure.resize((20_000, 16))),
    }
