"""What makes an image expensive to decode, found in its structure before a decoder sees it.

A few kilobytes can keep a decoder busy for minutes: every scan of a progressive JPEG is a pass over all pixels, and
Pillow keeps an object for every JPEG segment and PNG chunk. These are counted here, without decoding anything.
"""

import re
import struct
from typing import NamedTuple

from bundle.errors import ImageTooComplex, UnsupportedImage

MAX_SCANS = 100  # progressive encoders write about 10
MAX_SEGMENTS = 1000  # of JPEG; a colour profile takes up to 255, XMP of 16 MiB 256
MAX_CHUNKS = 10_000  # of PNG; libpng writes 8 KiB of pixels in each
_MAX_FILL = 1024  # bytes 0xFF between two JPEG segments, which Pillow skips one at a time
_START_OF_SCAN, _END_OF_IMAGE, _APP1 = 0xDA, 0xD9, 0xE1
_BMP_RUN_LENGTH = (1, 2)

# In the coded data of a scan 0xFF is followed by 0 or by a restart marker; anything else is the next marker. Like
# restart markers, TEM (1) has no length: bytes that follow it may be a scan.
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")


class Structure(NamedTuple):
    """What decoding an image depends on, besides its pixels."""

    passes: int = 1  # over the pixels: the scans of a JPEG, 1 for everything else
    jpeg: bool = False
    metadata: bool = True  # False: neither EXIF nor XMP is in it, so the picture is not turned


def read_structure(data: bytes) -> Structure:
    """Walk over the segments or chunks of an encoded picture.

    Raises ImageTooComplex for more scans, segments or chunks than any encoder writes, and UnsupportedImage for a
    run-length encoded BMP, which Pillow decodes byte by byte.
    """
    if data.startswith(b"\xff\xd8"):
        return _read_segments(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_chunks(data)
    elif data.startswith(b"BM") and len(data) >= 34:
        header_size, compression = struct.unpack_from("<I", data, 14)[0], struct.unpack_from("<I", data, 30)[0]
        if header_size >= 40 and compression in _BMP_RUN_LENGTH:
            raise UnsupportedImage("the image is a run-length encoded BMP; save it without compression, or as PNG")
    return Structure()


def _read_segments(data: bytes) -> Structure:
    scans = segments = 0
    position = 2
    in_scan = False
    metadata = False
    while (found := _MARKER.search(data, position)) is not None:
        marker, start = data[found.start() + 1], found.end()
        if not in_scan and found.start() - position > _MAX_FILL:
            raise ImageTooComplex("the image has thousands of fill bytes between its segments; save it again")
        if marker == _END_OF_IMAGE or start + 2 > len(data):
            break
        segments += 1
        in_scan = marker == _START_OF_SCAN
        scans += in_scan
        metadata |= marker == _APP1
        if segments > MAX_SEGMENTS or scans > MAX_SCANS:
            raise ImageTooComplex(
                f"the image has more than {MAX_SCANS} scans or {MAX_SEGMENTS:,} segments; save it as a baseline JPEG"
            )
        position = start + int.from_bytes(data[start : start + 2], "big")
    return Structure(max(1, scans), jpeg=True, metadata=metadata)


def _check_chunks(data: bytes) -> None:
    position = 8
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data) or data[position + 4 : position + 8] == b"IEND":
            return
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    raise ImageTooComplex(f"the image has more than {MAX_CHUNKS:,} chunks; save it again")
