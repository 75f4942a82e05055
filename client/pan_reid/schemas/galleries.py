"""Galleries, their entries and persons."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from pan_reid.schemas.base import (
    ATTRIBUTES_MAX,
    Attributes,
    GalleryName,
    Identifier,
    ItemError,
    Request,
    Response,
    Time,
)

_INDEX = (
    "auto: exact search while that takes a few milliseconds, then ivf_sq8. flat: always "
    "exact search. hnsw: a neighbour "
    "graph, fast to search and slow to build. ivf_sq8, ivf_pq: inverted lists. The service builds an index other than "
    "flat in the background from 2,048 entries on. It tunes the index to find 99.6 % of the ten nearest entries of "
    "held-out queries, and scores the candidates of the index exactly"
)
IndexKind = Literal["auto", "flat", "hnsw", "ivf_sq8", "ivf_pq"]
Days = Annotated[float, Field(ge=0.001, le=36_500)]  # at least 86 seconds: the service erases once a minute


class GalleryCreate(Request):
    name: GalleryName
    purpose: str = Field(default="", max_length=500, description="purpose of the gallery, for the record")
    index: IndexKind = Field(default="auto", description=_INDEX)
    retention_days: Days | None = Field(
        default=None,
        description="days until an entry expires, counted from its capture time; if that is unknown or after the "
        "enrolment, from its enrolment. Searches do not return an expired entry, and it is erased within a minute. 0.5 "
        "is 12 hours; null: entries do not expire",
    )
    keep_crops: bool = Field(
        default=False,
        description="store each enrolled image, re-encoded and without metadata. Re-embedding with another model needs "
        "stored images",
    )


class GalleryUpdate(Request):
    """A member that is given replaces that of the gallery."""

    purpose: str = Field(default="", max_length=500)
    index: IndexKind = Field(default="auto", description=_INDEX)
    retention_days: Days | None = Field(
        default=None, description="also for existing entries; null: entries do not expire"
    )
    keep_crops: bool = Field(
        default=False, description="true: store the images of later enrolments; false: also erase stored images at once"
    )


class IndexStatus(Response):
    """The index that searches a gallery at present."""

    kind: IndexKind
    entries: int = Field(description="entries in the index; later entries are searched exactly")
    exact: bool = Field(
        description="true: searches are exact, because there is no index, because its recall is below the target, or "
        "because too many entries were deleted after the measurement"
    )
    recall: float = Field(
        description="share of the ten nearest entries that the index finds, measured against exact search with "
        "entries of this gallery that are held out of the index; 1 without an index"
    )
    recall_recent: float = Field(description="the same share, measured with the newest entries")
    queries: int = Field(description="number of queries in the measurement of `recall`; 0 without an index")
    queries_recent: int = Field(description="number of queries in the measurement of `recall_recent`")
    measured_at: datetime | None = Field(description="time of the measurement; null without an index")


class Gallery(Response):
    name: str
    purpose: str
    index: IndexKind = Field(description="the configured kind")
    index_now: IndexStatus
    fingerprint: str = Field(description="of the model that made the vectors")
    dim: int
    created_at: datetime
    retention_days: float | None = Field(description="null: entries do not expire")
    keep_crops: bool
    searchable: bool = Field(
        description="true: images can be searched for. false: the gallery has vectors of another model than the loaded "
        "one, so that only its entries, and vectors with its `fingerprint`, can be searched for"
    )
    entries: int
    set_aside: int = Field(
        default=0,
        description="number of these entries that are damaged in the database. They are listed and can be deleted, but "
        "are neither searched nor exported; `pan-serve check` describes the damage",
    )
    persons: int


class GalleryList(Response):
    galleries: list[Gallery]


class EntryInfo(Request):
    """Metadata of a crop."""

    person_id: Identifier | None = None
    camera_id: Identifier | None = None
    captured_at: Time | None = Field(default=None, description="RFC 3339, with a time zone")
    attributes: Attributes = Field(
        default_factory=dict, max_length=ATTRIBUTES_MAX, description="other metadata, without nesting"
    )


class EntryUpdate(Request):
    """A member that is given replaces that of the entry; null clears it."""

    person_id: Identifier | None = None
    camera_id: Identifier | None = None
    captured_at: Time | None = None
    attributes: Attributes = Field(default_factory=dict, max_length=ATTRIBUTES_MAX)


class Entry(Response):
    entry_id: int
    person_id: str | None
    camera_id: str | None
    captured_at: datetime | None
    attributes: dict[str, Any]
    created_at: datetime
    image: bool = Field(description="true: the image is stored, see GET .../image")


class EntryPage(Response):
    entries: list[Entry]
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last page")


class ExportedGallery(Request):
    """The first line of an export."""

    format: Literal["pan-gallery"]
    version: int = Field(ge=1, le=2)
    fingerprint: str
    dim: int
    purpose: str = Field(max_length=500)
    retention_days: Days | None
    keep_crops: bool = False


class ExportedEntry(EntryInfo):
    """A line of an export between the first and the last."""

    created_at: Time
    vector: str = Field(description="base64 of float32, little-endian")
    image: str | None = Field(default=None, description="base64 of a JPEG")


class EnrolResult(Response):
    index: int = Field(description="position in the request, from 0")
    entry_id: int | None = None
    error: ItemError | None = None


class Enrolled(Response):
    enrolled: int
    failed: int
    results: list[EnrolResult]


class EnrolSummary(Response):
    """The last line of an enrolment stream."""

    enrolled: int
    failed: int
    error: ItemError | None = Field(
        default=None, description="the error that ended the stream early; absent if it was complete"
    )


class Person(Response):
    person_id: str
    entries: int
    cameras: int


class PersonPage(Response):
    persons: list[Person]
    next_cursor: str | None


class ErasureReceipt(Response):
    """Receipt of an erasure, issued after the deletion is on disk."""

    gallery: str
    person_id: str | None = Field(default=None, description="absent if the erasure was not of one person")
    entries: int
    overwritten: bool = Field(
        description="true: the data is overwritten in the database file, and the write-ahead log is "
        "truncated. false: a "
        "long read or a disk error prevented the truncation; the next erasure or restart repeats it"
    )
    erased_at: datetime


class ReEmbedding(Response):
    """Progress of the re-embedding of a gallery with the loaded model."""

    gallery: str
    state: Literal["current", "needed", "running", "stopped"] = Field(
        description="current: the vectors are of the loaded model. needed: they are not, and re-embedding was not "
        "requested. stopped: `problem` describes the decision to make"
    )
    fingerprint: str = Field(description="of the model that made the vectors")
    entries: int
    done: int = Field(description="number of entries with a vector of the loaded model")
    without_crop: int = Field(description="number of entries without a usable stored image")
    problem: str | None = Field(description="the reason why it stopped or waits for a retry")
    erased: ErasureReceipt | None = Field(
        description="receipt of the entries without an image that the last re-embedding erased"
    )
