"""An entry as every layer knows it."""

from dataclasses import dataclass

from service.core.clock import now


@dataclass(frozen=True, slots=True)
class NewEntry:
    """What is known of a crop: who, which camera, when (microseconds, UTC), and a JSON object of anything else."""

    person_id: str | None = None
    camera_id: str | None = None
    captured_at: int | None = None
    attributes: str = "{}"


@dataclass(frozen=True, slots=True)
class EntryRow:
    """A crop that was enrolled."""

    id: int
    person_id: str | None
    camera_id: str | None
    captured_at: int | None
    attributes: str
    created_at: int


EntryMetadata = NewEntry | EntryRow  # either says what is known of a crop


def since(known: EntryMetadata) -> int:
    """When an entry begins to age, as the column of this name: when captured, and at the latest when enrolled."""
    enrolled = known.created_at if isinstance(known, EntryRow) else now()
    return enrolled if known.captured_at is None else min(known.captured_at, enrolled)
