"""The results of the use cases, as plain data. The API maps them to responses.

Times and durations are in microseconds. A result that is no more than bytes or a stored row has no class of its own.
"""

from dataclasses import dataclass
from typing import Literal

from bundle import ImageError
from pan_reid.schemas import IndexKind
from service.core.errors import item_error
from service.core.models import EntryRow
from service.core.types import Vectors
from service.galleries.query.match_policy import MatchPolicy
from service.storage.audit import AuditRow
from service.storage.entries import ExportedRow, PersonRow
from service.storage.galleries import GalleryRow

Maps = dict[str, Vectors]  # part masks and compatibility maps of one crop, by name


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """The error of one item; the other items of the command did not fail."""

    code: str
    detail: str

    @staticmethod
    def of(error: ImageError) -> "ItemFailure":
        """The failure that an error causes."""
        return ItemFailure(**item_error(error))


# -- inference


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One outcome for each image: a (D,) unit vector, or its failure."""

    fingerprint: str
    dim: int
    outcomes: tuple[Vectors | ItemFailure, ...]


@dataclass(frozen=True, slots=True)
class Explanations:
    """One outcome for each image: its maps, or its failure."""

    fingerprint: str
    outcomes: tuple[Maps | ItemFailure, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The cosine of the means of two sets, and the most similar pair by its positions in the sets."""

    similarity: float
    best_a: int
    best_b: int
    best_similarity: float
    policy: MatchPolicy


# -- galleries


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """The index that searches of a gallery use now, and its measured recall."""

    kind: IndexKind
    entries: int
    exact: bool
    recall: float
    recall_recent: float
    queries: int
    queries_recent: int
    measured_at: int | None


@dataclass(frozen=True, slots=True)
class GalleryInfo:
    """A gallery: its row in the database, and the state of its index."""

    row: GalleryRow
    index: IndexStatus
    is_current: bool  # its vectors are of the loaded model
    entries: int  # including damaged ones
    set_aside: int
    persons: int


@dataclass(frozen=True, slots=True)
class Erasure:
    """The number of erased entries, and whether the files of the database hold nothing of them any more."""

    entries: int
    overwritten: bool
    erased_at: int


ReEmbeddingState = Literal["current", "needed", "running", "stopped"]


@dataclass(frozen=True, slots=True)
class ReEmbedding:
    """The progress of re-embedding a gallery with the loaded model. `problem` is the reason why it is stopped."""

    gallery: str
    state: ReEmbeddingState
    fingerprint: str
    entries: int
    done: int
    without_crop: int
    problem: str | None
    erased: Erasure | None


# -- entries and persons


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry, and whether its image is kept."""

    row: EntryRow
    has_image: bool


@dataclass(frozen=True, slots=True)
class EntryPage:
    """A page of entries. `next_after` is None on the last page."""

    entries: tuple[Entry, ...]
    next_after: int | None


@dataclass(frozen=True, slots=True)
class PersonPage:
    """A page of persons. `next_after` is None on the last page."""

    persons: tuple[PersonRow, ...]
    next_after: str | None


# -- audit log


@dataclass(frozen=True, slots=True)
class AuditPage:
    """A page of the audit log, newest first. `next_before` is None on the last page."""

    records: tuple[AuditRow, ...]
    next_before: int | None


# -- enrolment


@dataclass(frozen=True, slots=True)
class EnrolmentTarget:
    """The gallery that a stream enrols in. A gallery of the same name that is created later has another id."""

    gallery: str
    gallery_id: int
    dim: int


# -- search


@dataclass(frozen=True, slots=True)
class FoundEntry:
    """An entry, its cosine with the query, and its distance after re-ranking."""

    entry: EntryRow
    score: float
    distance: float | None = None


@dataclass(frozen=True, slots=True)
class FoundPerson:
    """A person, the best and the mean score over the searched entries, and the best entries."""

    person_id: str
    score: float  # the one of the two that ranks persons
    best: float
    mean: float
    entries: int
    examples: tuple[FoundEntry, ...]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Entries, or persons where the search is grouped, best first. `fused` is the number of query vectors."""

    gallery: str
    fused: int
    found: tuple[FoundEntry, ...] | tuple[FoundPerson, ...]
    is_grouped: bool
    policy: MatchPolicy

    @property
    def rows(self) -> int:
        """The number of entries and persons in the result."""
        return len(self.found) + sum(len(one.examples) for one in self.found if isinstance(one, FoundPerson))


# -- transfer


@dataclass(frozen=True, slots=True)
class ExportCursor:
    """An export in progress: entries with ids greater than `after`, up to `last`."""

    gallery: GalleryRow
    last: int
    after: int = 0


@dataclass(frozen=True, slots=True)
class ExportPage:
    """Entries of an export. Expired and damaged entries are left out. `following` is None after the last page."""

    entries: tuple[ExportedRow, ...]
    following: ExportCursor | None


# -- the service


@dataclass(frozen=True, slots=True)
class Readiness:
    """The background jobs that fail at the moment, and the numbers of damaged entries and galleries."""

    failing: tuple[str, ...]
    set_aside: int
    galleries_set_aside: int
