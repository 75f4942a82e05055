"""What became of crops that were enrolled together: as it is kept under an Idempotency-Key, and in order."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

_DIGEST = 8  # bytes of each line; a client that finds two lines of one digest deceives only itself


@dataclass(frozen=True, slots=True)
class Range:
    """Crops in a row that were enrolled; so are their ids. `index` is the place of the first in the request."""

    index: int
    entry_id: int
    count: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A crop that was not."""

    index: int
    error: dict[str, str]


@dataclass(frozen=True, slots=True)
class Batch:
    """Crops that were committed together: how many, by their place those that failed, and the id of the first of the
    others. Of the lines of a stream that has a key also the digests, so that they are known when they come again.
    """

    count: int = 0
    failures: dict[int, dict[str, str]] = field(default_factory=dict)
    digests: bytes = b""
    first_id: int = 0

    def outcomes(self, begin: int, end: int, index: int = 0) -> Iterator[Range | Failure]:
        """Those of the places from `begin` to before `end`, in order; `index` is that of the place `begin`."""
        entry_id = self.first_id + begin - sum(failed < begin for failed in self.failures)
        place = begin
        for failed in [*sorted(one for one in self.failures if begin <= one < end), end]:
            if failed > place:
                yield Range(index + place - begin, entry_id, failed - place)
                entry_id += failed - place
            if failed < end:
                yield Failure(index + failed - begin, self.failures[failed])
            place = failed + 1

    def count_same(self, place: int, lines: Sequence[bytes | None]) -> int:
        """How many of these lines, from the first, are those that the batch had from `place` on."""
        if not self.digests:
            return len(lines)
        begin = place * _DIGEST
        given, known = digest_lines(lines), self.digests[begin : begin + len(lines) * _DIGEST]
        for at in range(0, len(given), _DIGEST):
            if given[at : at + _DIGEST] != known[at : at + _DIGEST]:
                return at // _DIGEST
        return len(lines)

    def dumps(self) -> bytes:
        """For the database."""
        digests = base64.b64encode(self.digests).decode()
        return orjson.dumps([self.count, self.first_id, list(self.failures.items()), digests])

    @staticmethod
    def loads(data: bytes) -> "Batch":
        """Out of the database."""
        value = orjson.loads(data)
        if isinstance(value, dict) or isinstance(value[1], str):
            return _from_earlier_version(value)
        count, first_id, failures, digests = value
        return Batch(count, dict(failures), base64.b64decode(digests), first_id)


def digest_lines(lines: Sequence[bytes | None]) -> bytes:
    """A digest of each, one after another."""
    return b"".join(hashlib.blake2b(b"\n" if line is None else line, digest_size=_DIGEST).digest() for line in lines)


def _from_earlier_version(value: Any) -> Batch:
    """What was kept before an update: the JSON of an answer, or a batch of a stream without digests of lines."""
    if isinstance(value, list):
        count, _, first_id, failures = value
        return Batch(count, dict(failures), first_id=first_id)
    results = value["results"]
    failures = {place: one["error"] for place, one in enumerate(results) if "error" in one}
    return Batch(len(results), failures, first_id=next((one["entry_id"] for one in results if "entry_id" in one), 0))
