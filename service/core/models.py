"""An entry: one enrolled crop and its metadata. Times are in microseconds since 1970-01-01 UTC."""

from dataclasses import dataclass

from service.core.clock import now


@dataclass(frozen=True, slots=True)
class NewEntry:
    """The metadata of a crop that is to be enrolled. `attributes` is a JSON object."""

    person_id: str | None = None
    camera_id: str | None = None
    captured_at: int | None = None
    attributes: str = "{}"


@dataclass(frozen=True, slots=True)
class EntryRow:
    """The metadata of an enrolled crop."""

    id: int
    person_id: str | None
    camera_id: str | None
    captured_at: int | None
    attributes: str
    created_at: int


EntryMetadata = NewEntry | EntryRow


def since(entry: EntryMetadata) -> int:
    """The start of the retention period of an entry: when it was captured, but no later than its enrolment.

    The database column `since` has the same definition.
    """
    enrolled = entry.created_at if isinstance(entry, EntryRow) else now()
    return enrolled if entry.captured_at is None else min(entry.captured_at, enrolled)
