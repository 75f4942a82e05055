"""The results of crops that were committed together: as stored under an idempotency key, and as outcomes in order."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

_DIGEST_SIZE = 8  # bytes for each line; a client that finds a collision harms only itself


@dataclass(frozen=True, slots=True)
class EnrolledRange:
    """Consecutive crops that were enrolled with consecutive ids. `index` is the position of the first crop."""

    index: int
    entry_id: int
    count: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A crop that was not enrolled."""

    index: int
    error: dict[str, str]


@dataclass(frozen=True, slots=True)
class Batch:
    """Crops that were committed together: their number, the errors of failed crops by position, and the first id.

    `digests` has a digest of each line of a stream with an idempotency key, to recognise lines that are sent again.
    """

    count: int = 0
    failures: dict[int, dict[str, str]] = field(default_factory=dict)
    digests: bytes = b""
    first_id: int = 0

    def outcomes(self, begin: int, end: int, index: int = 0) -> Iterator[EnrolledRange | Failure]:
        """The outcomes of the positions `begin` to `end` (exclusive), in order. Position `begin` gets index `index`."""
        entry_id = self.first_id + begin - sum(failed < begin for failed in self.failures)
        place = begin
        for failed in [*sorted(one for one in self.failures if begin <= one < end), end]:
            if failed > place:
                yield EnrolledRange(index + place - begin, entry_id, failed - place)
                entry_id += failed - place
            if failed < end:
                yield Failure(index + failed - begin, self.failures[failed])
            place = failed + 1

    def count_same(self, place: int, lines: Sequence[bytes | None]) -> int:
        """The number of lines, from the first, that equal the lines of the batch from position `place`."""
        if not self.digests:
            return len(lines)
        begin = place * _DIGEST_SIZE
        given, known = digest_lines(lines), self.digests[begin : begin + len(lines) * _DIGEST_SIZE]
        for at in range(0, len(given), _DIGEST_SIZE):
            if given[at : at + _DIGEST_SIZE] != known[at : at + _DIGEST_SIZE]:
                return at // _DIGEST_SIZE
        return len(lines)

    def dumps(self) -> bytes:
        """Encode for the database."""
        digests = base64.b64encode(self.digests).decode()
        return orjson.dumps([self.count, self.first_id, list(self.failures.items()), digests])

    @staticmethod
    def loads(data: bytes) -> "Batch":
        """Decode from the database."""
        value = orjson.loads(data)
        if isinstance(value, dict) or isinstance(value[1], str):
            return _from_earlier_version(value)
        count, first_id, failures, digests = value
        return Batch(count, dict(failures), base64.b64decode(digests), first_id)


def digest_lines(lines: Sequence[bytes | None]) -> bytes:
    """The digests of lines, concatenated. None is a line that was too long."""
    return b"".join(
        hashlib.blake2b(b"\n" if line is None else line, digest_size=_DIGEST_SIZE).digest() for line in lines
    )


def _from_earlier_version(value: Any) -> Batch:
    """Decode what an earlier version stored: the JSON of a response, or a batch of a stream without digests."""
    if isinstance(value, list):
        count, _, first_id, failures = value
        return Batch(count, dict(failures), first_id=first_id)
    results = value["results"]
    failures = {place: one["error"] for place, one in enumerate(results) if "error" in one}
    return Batch(len(results), failures, first_id=next((one["entry_id"] for one in results if "entry_id" in one), 0))
