"""What became of the lines of a stream: as it is kept under the stream's key, and as the lines that are sent of it."""

from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from bundle import PanError
from service.answers import dumps, item_error


@dataclass(frozen=True, slots=True)
class Run:
    """Lines in a row that were enrolled; so are their ids."""

    index: int
    entry_id: int
    count: int

    def text(self) -> bytes:
        """A line for each."""
        return b"".join(
            b'{"index":%d,"entry_id":%d}\n' % (self.index + place, self.entry_id + place) for place in range(self.count)
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """A line that was not."""

    index: int
    error: dict[str, str]

    def text(self) -> bytes:
        """One line."""
        return dumps({"index": self.index, "error": self.error}) + b"\n"


@dataclass(slots=True)
class End:
    """How many were and were not; and the error that ended the stream before its lines did."""

    enrolled: int = 0
    failed: int = 0
    error: PanError | None = None

    def text(self) -> bytes:
        """The last line."""
        why = {} if self.error is None else {"error": item_error(self.error)}
        return dumps({"enrolled": self.enrolled, "failed": self.failed, **why}) + b"\n"


Result = Run | Failure | End


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines that were committed together: how many, their SHA-256, the id of the first entry, and by their place in the
    batch those that failed.
    """

    lines: int
    digest: str
    first: int
    errors: dict[int, dict[str, str]]

    def results(self, start: int) -> Iterator[Result]:
        """What is sent of it, in order; `start` is the index of its first line in the stream."""
        place, entry_id = 0, self.first
        for failed in [*sorted(self.errors), self.lines]:
            if failed > place:
                yield Run(start + place, entry_id, failed - place)
                entry_id += failed - place
            if failed < self.lines:
                yield Failure(start + failed, self.errors[failed])
            place = failed + 1

    def dumps(self) -> bytes:
        """For the database."""
        return dumps([self.lines, self.digest, self.first, list(self.errors.items())])

    @staticmethod
    def loads(data: bytes) -> "Batch":
        """Out of it."""
        lines, digest, first, errors = orjson.loads(data)
        return Batch(lines, digest, first, dict(errors))
