"""The results of an enrolment as JSON: of a plain call in one object, of a stream in lines."""

from dataclasses import dataclass
from typing import Any

from bundle import PanError
from service.api.responses import dumps
from service.core.errors import item_error
from service.galleries.enrolment_results import Batch, EnrolledRange, Failure


def enrolled_view(batch: Batch) -> dict[str, Any]:
    """The schema Enrolled."""
    results: list[dict[str, Any]] = []
    for outcome in batch.outcomes(0, batch.count):
        if isinstance(outcome, EnrolledRange):
            places = range(outcome.count)
            results += ({"index": outcome.index + n, "entry_id": outcome.entry_id + n} for n in places)
        else:
            results.append({"index": outcome.index, "error": outcome.error})
    failed = len(batch.failures)
    return {"enrolled": batch.count - failed, "failed": failed, "results": results}


@dataclass(slots=True)
class Summary:
    """The numbers of enrolled and failed lines, and the error that ended the stream early."""

    enrolled: int = 0
    failed: int = 0
    error: PanError | None = None

    @property
    def lines(self) -> int:
        """Lines that have a result."""
        return self.enrolled + self.failed

    def add(self, outcome: EnrolledRange | Failure) -> None:
        """Count an outcome."""
        if isinstance(outcome, EnrolledRange):
            self.enrolled += outcome.count
        else:
            self.failed += 1


StreamResult = EnrolledRange | Failure | Summary


def result_lines(result: StreamResult) -> bytes:
    """The lines of the response: one for each crop of a range, one for a failure or the summary."""
    if isinstance(result, EnrolledRange):
        places = range(result.count)
        return b"".join(b'{"index":%d,"entry_id":%d}\n' % (result.index + n, result.entry_id + n) for n in places)
    if isinstance(result, Failure):
        return dumps({"index": result.index, "error": result.error}) + b"\n"
    error = {} if result.error is None else {"error": item_error(result.error)}
    return dumps({"enrolled": result.enrolled, "failed": result.failed, **error}) + b"\n"
