"""The lines that a stream of enrolments is answered with."""

from dataclasses import dataclass

from bundle import PanError
from service.api.responses import dumps
from service.core.errors import item_error
from service.galleries.enrolment_results import Failure, Range


@dataclass(slots=True)
class Summary:
    """How many lines were enrolled and how many were not; and the error that ended the stream before its lines did."""

    enrolled: int = 0
    failed: int = 0
    error: PanError | None = None

    @property
    def lines(self) -> int:
        """Lines that have a result."""
        return self.enrolled + self.failed

    def add(self, outcome: Range | Failure) -> None:
        """Count an outcome."""
        if isinstance(outcome, Range):
            self.enrolled += outcome.count
        else:
            self.failed += 1


Result = Range | Failure | Summary


def result_text(result: Result) -> bytes:
    """A line for each crop of a range, one of a failure, and the last one of a summary."""
    if isinstance(result, Range):
        places = range(result.count)
        return b"".join(b'{"index":%d,"entry_id":%d}\n' % (result.index + n, result.entry_id + n) for n in places)
    if isinstance(result, Failure):
        return dumps({"index": result.index, "error": result.error}) + b"\n"
    why = {} if result.error is None else {"error": item_error(result.error)}
    return dumps({"enrolled": result.enrolled, "failed": result.failed, **why}) + b"\n"
