"""The commands of the use cases: what a caller may ask, as plain data.

Every command is a frozen dataclass of numbers, texts, bytes, arrays and dataclasses of these, so that it can be sent to
another process. `caller` is the name that the audit log records. Times and durations are in microseconds.
"""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from bundle import PanError
from pan_reid.schemas import IndexKind, SearchOptions
from service.core.models import EntryRow, NewEntry
from service.core.types import Image

DAY = 86_400_000_000  # microseconds
Box = tuple[float, float, float, float]  # x, y, width, height in pixels, from the upper left corner
Numbers = npt.NDArray[np.floating]  # (n,) as the caller sent them: of any length and any dimension


@dataclass(frozen=True, slots=True)
class Images:
    """Encoded images, each one crop; or one frame and the boxes of the crops in it."""

    images: tuple[Image, ...]
    boxes: tuple[Box, ...] | None = None
    member: str = "images"  # the list in the request that holds them; error messages name it

    def __len__(self) -> int:
        return len(self.images if self.boxes is None else self.boxes)

    @property
    def names(self) -> list[str]:
        """The position of each crop in the request."""
        member = self.member if self.boxes is None else "boxes"
        return [f"{member}.{index}" for index in range(len(self))]


# -- inference


@dataclass(frozen=True, slots=True)
class EmbedImages:
    """Embed crops. With `all_or_nothing` one unusable image fails the command."""

    images: Images
    all_or_nothing: bool = False


@dataclass(frozen=True, slots=True)
class ExplainImages:
    """Compute part masks and compatibility maps of crops."""

    images: Images


@dataclass(frozen=True, slots=True)
class CompareImages:
    """Compare two sets of crops, each of one person. At most one of rate and threshold is given."""

    caller: str
    a: Images
    b: Images
    false_positive_rate: float | None
    threshold: float | None


# -- galleries


@dataclass(frozen=True, slots=True)
class GetGallery:
    """One gallery."""

    gallery: str


@dataclass(frozen=True, slots=True)
class CreateGallery:
    """Create an empty gallery of the loaded model."""

    caller: str
    name: str
    purpose: str = ""
    index_kind: IndexKind = "auto"
    retention: int | None = None
    keep_crops: bool = False


class GalleryChanges(TypedDict, total=False):
    """The settings of a gallery that an update replaces."""

    purpose: str
    index_kind: IndexKind
    retention: int | None
    keep_crops: bool


@dataclass(frozen=True, slots=True)
class UpdateGallery:
    """Replace settings of a gallery."""

    caller: str
    gallery: str
    changes: GalleryChanges


@dataclass(frozen=True, slots=True)
class DeleteGallery:
    """Erase a gallery with everything in it."""

    caller: str
    gallery: str


@dataclass(frozen=True, slots=True)
class PurgeGallery:
    """Erase the expired entries of a gallery."""

    caller: str
    gallery: str


@dataclass(frozen=True, slots=True)
class GetReEmbedding:
    """The progress of re-embedding a gallery with the loaded model."""

    gallery: str


@dataclass(frozen=True, slots=True)
class ReEmbedGallery:
    """Embed the kept crops of a gallery with the loaded model."""

    caller: str
    gallery: str
    drop_without_crop: bool = False


# -- entries and persons


@dataclass(frozen=True, slots=True)
class ListEntries:
    """A page of entries with ids greater than `after`."""

    gallery: str
    after: int = 0
    limit: int = 100
    person_id: str | None = None
    camera_id: str | None = None


@dataclass(frozen=True, slots=True)
class GetEntry:
    """One entry."""

    gallery: str
    entry_id: int


@dataclass(frozen=True, slots=True)
class GetImage:
    """The kept image of an entry."""

    caller: str
    gallery: str
    entry_id: int


class EntryChanges(TypedDict, total=False):
    """The metadata of an entry that an update replaces. `attributes` is JSON."""

    person_id: str | None
    camera_id: str | None
    captured_at: int | None
    attributes: str


@dataclass(frozen=True, slots=True)
class UpdateEntry:
    """Replace metadata of an entry. Its vector stays."""

    caller: str
    gallery: str
    entry_id: int
    changes: EntryChanges


@dataclass(frozen=True, slots=True)
class DeleteEntry:
    """Delete an entry with its vector and image."""

    caller: str
    gallery: str
    entry_id: int


@dataclass(frozen=True, slots=True)
class ListPersons:
    """A page of persons with ids greater than `after`."""

    gallery: str
    after: str = ""
    limit: int = 100


@dataclass(frozen=True, slots=True)
class ErasePerson:
    """Erase every entry of a person."""

    caller: str
    gallery: str
    person_id: str


# -- audit log


@dataclass(frozen=True, slots=True)
class ListAudit:
    """A page of audit records with ids below `before`, newest first. None disables a filter.

    `caller` filters by the recorded name. It is not the caller of this command, which is not recorded.
    """

    before: int
    limit: int = 100
    since: int | None = None
    until: int | None = None
    caller: str | None = None
    gallery: str | None = None
    action: str | None = None


# -- enrolment


@dataclass(frozen=True, slots=True)
class Crop:
    """The metadata of a crop and the source of its vector: an image, a box of the frame, or the vector itself."""

    entry: NewEntry
    source: Image | Box | Numbers


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The caller's key for a request, and the SHA-256 of its content."""

    key: str
    request: str


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Check that a stream can enrol in a gallery."""

    gallery: str


@dataclass(frozen=True, slots=True)
class EnrolCrops:
    """Embed crops and store those that can be used, in one commit.

    A crop that could not be parsed is given as its error. `gallery_id` requires that the gallery of this name is still
    the same one. A request that is not part of a stream is refused if none of its crops can be used. `digests` identify
    the lines of a stream, see `enrolment_results`.
    """

    caller: str
    gallery: str
    crops: tuple[Crop | PanError, ...]
    frame: Image | None = None
    member: str = "entries"  # the list in the request that holds the crops; error messages name it
    key: IdempotencyKey | None = None
    gallery_id: int | None = None
    is_stream: bool = False
    digests: bytes = b""


# -- search


@dataclass(frozen=True, slots=True)
class VectorQuery:
    """Vectors of one person."""

    vectors: tuple[Numbers, ...]

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True, slots=True)
class EntryQuery:
    """Entries of the gallery that show one person."""

    ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class SearchGallery:
    """Search a gallery for one person."""

    caller: str
    gallery: str
    query: Images | VectorQuery | EntryQuery
    options: SearchOptions


# -- transfer


@dataclass(frozen=True, slots=True)
class ExportGallery:
    """Start the export of a gallery."""

    caller: str
    gallery: str


@dataclass(frozen=True, slots=True)
class BeginImport:
    """Start the import of a gallery. The gallery is visible once the import is finished."""

    gallery: str
    fingerprint: str
    dim: int
    purpose: str
    retention: int | None
    keep_crops: bool


@dataclass(frozen=True, slots=True)
class ImportedEntry:
    """An entry of an export file, and the number of its line."""

    line: int
    entry: EntryRow
    vector: Numbers
    image: bytes | None


@dataclass(frozen=True, slots=True)
class ImportEntries:
    """Add entries to a gallery whose import has begun."""

    gallery_id: int
    entries: tuple[ImportedEntry, ...]


@dataclass(frozen=True, slots=True)
class FinishImport:
    """Make an imported gallery visible under its name."""

    caller: str
    gallery: str
    gallery_id: int


@dataclass(frozen=True, slots=True)
class AbortImport:
    """Delete a gallery whose import has begun."""

    gallery_id: int
