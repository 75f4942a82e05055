"""The file of an exported gallery: JSON lines, and a footer with the number of lines and their SHA-256.

    {"format": "pan-gallery", "version": 2, "fingerprint": ..., "dim": ..., "purpose": ..., "retention_days": ...,
     "keep_crops": true}
    {"person_id": ..., "camera_id": ..., "captured_at": ..., "attributes": {...}, "created_at": ..., "vector": "base64",
     "image": "base64"}
    ...
    {"lines": 2, "sha256": "..."}

An entry has an `image` if the gallery keeps one. Version 1, which can still be read, has no images. The file is written
and checked line by line, so its size is not limited by memory. A file that was cut off has no footer.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from pydantic_core import from_json, to_json

from pan_reid.errors import InvalidExport

FORMAT = {"format": "pan-gallery", "version": 2}
_READABLE = (FORMAT, {"format": "pan-gallery", "version": 1})
LONGEST = 2**23  # bytes in a line; a stored crop of pure noise takes half of it


def _parse_json(line: bytes) -> Any:
    try:
        return from_json(line, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None


class ExportWriter:
    """Counts and hashes the lines of an export."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._count = 0

    def line(self, record: bytes) -> bytes:
        """The line of the file for an encoded JSON object."""
        line = record + b"\n"
        self._digest.update(line)
        self._count += 1
        return line

    def footer(self) -> bytes:
        """The last line of the file."""
        return to_json({"lines": self._count, "sha256": self._digest.hexdigest()}) + b"\n"


class ExportReader:
    """Reads an export in chunks of any size, and holds at most one line in memory."""

    def __init__(self, parse: Callable[[bytes], Any] = _parse_json) -> None:
        """`parse` decodes the JSON of a line and raises ValueError."""
        self._parse = parse
        self._digest = hashlib.sha256()
        self._count = 0
        self._rest = b""
        self._complete = False

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        """The records whose lines end in this chunk, without the footer. Raises InvalidExport."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            record = self._record(line)
            if "sha256" in record:
                if record != {"lines": self._count, "sha256": self._digest.hexdigest()}:
                    raise InvalidExport("the export was changed or damaged: its checksum differs")
                self._complete = True
            else:
                self._digest.update(line + b"\n")
                self._count += 1
                yield record
        if len(self._rest) > LONGEST:
            raise InvalidExport(
                f"line {self._count + 1} has more than {LONGEST:,} bytes; this is not an exported gallery"
            )

    def verify_complete(self) -> None:
        """Raises InvalidExport if the footer is missing."""
        if not self._complete or self._rest:
            raise InvalidExport(f"the export ends after {self._count} lines and has no footer; export it again")

    def _record(self, line: bytes) -> dict[str, Any]:
        where = f"line {self._count + 1}"
        if self._complete:
            raise InvalidExport(f"{where}: text after the footer; this is not an exported gallery")
        try:
            record = self._parse(line)
        except ValueError as error:
            raise InvalidExport(f"{where}: {error}; this is not an exported gallery") from None
        if not isinstance(record, dict) or (
            not self._count and {name: record.get(name) for name in FORMAT} not in _READABLE
        ):
            raise InvalidExport(
                f"{where}: this is not an exported gallery that this release can read; its first line has {FORMAT}"
            )
        return record
