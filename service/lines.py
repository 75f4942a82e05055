"""The file of an exported gallery: JSON lines, and a last one that says how many they were and their SHA-256.

    {"format": "pan-gallery", "version": 2, "fingerprint": ..., "dim": ..., "purpose": ..., "retention_days": ...,
     "keep_crops": true}
    {"person_id": ..., "camera_id": ..., "captured_at": ..., "attributes": {...}, "created_at": ..., "vector": "base64",
     "image": "base64"}
    ...
    {"lines": 2, "sha256": "..."}

A line has an `image` where the gallery keeps one of the entry; version 1, which is read as well, knew none. The file
can be written and checked line by line, however large it is, and one that was cut off has no last line.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import orjson

from service.api.parsing.json_text import VALUES_PER_ENTRY, parse_json
from service.core.errors import BodyTooLarge, InvalidRequest

FORMAT = {"format": "pan-gallery", "version": 2}
_READ = (FORMAT, {"format": "pan-gallery", "version": 1})
LONGEST = 2**23  # bytes; a kept crop of pure noise takes half of it, attributes and a vector of 8,192 numbers little


class Writer:
    """Makes the lines."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._count = 0

    def line(self, record: dict[str, Any]) -> bytes:
        """One line."""
        line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)
        self._digest.update(line)
        self._count += 1
        return line

    def last(self) -> bytes:
        """The line that makes it whole."""
        end = {"lines": self._count, "sha256": self._digest.hexdigest()}
        return orjson.dumps(end, option=orjson.OPT_APPEND_NEWLINE)


class Reader:
    """Takes the bytes as they come, and gives the lines; holds one line at most."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._count = 0
        self._rest = b""
        self._whole = False

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        """The lines that end in this chunk, without the last one of the file. Raises InvalidRequest."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            record = self._parsed(line)
            if "sha256" in record:
                if record != {"lines": self._count, "sha256": self._digest.hexdigest()}:
                    raise InvalidRequest("the export was changed or damaged on its way: its checksum differs")
                self._whole = True
            else:
                self._digest.update(line + b"\n")
                self._count += 1
                yield record
        if len(self._rest) > LONGEST:
            raise InvalidRequest(f"line {self._count + 1} has more than {LONGEST:,} bytes; this is no exported gallery")

    def finish(self) -> None:
        """Raises InvalidRequest where the end is missing."""
        if not self._whole or self._rest:
            raise InvalidRequest(f"the export ends after {self._count} lines without its last one; export it again")

    def _parsed(self, line: bytes) -> dict[str, Any]:
        where = f"line {self._count + 1}"
        if self._whole:
            raise InvalidRequest(f"{where}: there is more after the last line; this is no exported gallery")
        try:
            record = parse_json(line, VALUES_PER_ENTRY, "it")
        except (BodyTooLarge, InvalidRequest) as error:
            raise InvalidRequest(f"{where}: {error}; this is no exported gallery") from None
        if not isinstance(record, dict) or (
            not self._count and {name: record.get(name) for name in FORMAT} not in _READ
        ):
            raise InvalidRequest(f"{where}: this is no gallery that this release can read; it begins with {FORMAT}")
        return record
