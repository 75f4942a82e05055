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
    "auto: exact as long as that takes a few milliseconds, then ivf_sq8. flat: exact always. hnsw: a graph, quick to "
    "search and slow to build. ivf_sq8, ivf_pq: inverted lists. Any but flat is built in the background once there are "
    "2,048 entries, and searched when it finds 99.6 % of the ten nearest of entries that it is tried on; what it finds "
    "is scored exactly"
)
IndexKind = Literal["auto", "flat", "hnsw", "ivf_sq8", "ivf_pq"]
Days = Annotated[float, Field(ge=0.001, le=36_500)]  # at least 86 seconds: the service erases by the minute


class GalleryCreate(Request):
    name: GalleryName
    purpose: str = Field(default="", max_length=500, description="what the gallery is for, for the record")
    index: IndexKind = Field(default="auto", description=_INDEX)
    retention_days: Days | None = Field(
        default=None,
        description="an entry expires so long after it was captured, or after it was enrolled where that is unknown or "
        "earlier; it answers no search from then on, and is erased within a minute; 0.5 is 12 hours; null: never",
    )
    keep_crops: bool = Field(
        default=False,
        description="keep each enrolled picture, encoded anew and without its metadata; only then can another model "
        "take the gallery over",
    )


class GalleryUpdate(Request):
    """Members that are given replace those of the gallery."""

    purpose: str = Field(default="", max_length=500)
    index: IndexKind = Field(default="auto", description=_INDEX)
    retention_days: Days | None = Field(default=None, description="of the entries that are there, too; null: for good")
    keep_crops: bool = Field(
        default=False, description="true: of what is enrolled from now on; false: kept pictures are erased at once"
    )


class IndexStatus(Response):
    """What searches a gallery at this moment."""

    kind: IndexKind
    entries: int = Field(description="for which the index answers; later ones are searched exactly beside it")
    exact: bool = Field(
        description="true: each search compares every entry, because there is no index, or because its recall is below "
        "the target, or because too much was deleted since it was measured"
    )
    recall: float = Field(
        description="share of the ten nearest entries that the index finds, measured with entries of this gallery that "
        "it does not hold, against exact search; 1 where there is no index"
    )
    recall_recent: float = Field(description="the same, measured with the newest entries")
    queries: int = Field(description="entries that `recall` was measured with; 0 where there is no index")
    queries_recent: int = Field(description="entries that `recall_recent` was measured with")
    measured_at: datetime | None = Field(description="null where there is no index")


class Gallery(Response):
    name: str
    purpose: str
    index: IndexKind = Field(description="as was asked for")
    index_now: IndexStatus
    fingerprint: str = Field(description="of the model its vectors come from")
    dim: int
    created_at: datetime
    retention_days: float | None = Field(description="null: entries are kept until they are deleted")
    keep_crops: bool
    searchable: bool = Field(
        description="by pictures; false when it was enrolled with another model than the one that is loaded: then only "
        "its entries, and vectors that say so by `fingerprint`, find anything in it"
    )
    entries: int
    set_aside: int = Field(
        default=0,
        description="of these entries, those that are damaged in the database: they are listed and can be deleted, "
        "and neither found nor exported; `pan-serve check` says what is wrong with them",
    )
    persons: int


class GalleryList(Response):
    galleries: list[Gallery]


class EntryInfo(Request):
    """What is known of a crop."""

    person_id: Identifier | None = None
    camera_id: Identifier | None = None
    captured_at: Time | None = Field(default=None, description="with a time zone")
    attributes: Attributes = Field(default_factory=dict, max_length=ATTRIBUTES_MAX, description="anything else, flat")


class EntryUpdate(Request):
    """Members that are given replace those of the entry; null clears one."""

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
    image: bool = Field(description="whether its picture is kept: GET .../image")


class EntryPage(Response):
    entries: list[Entry]
    next_cursor: str | None = Field(description="give it as `cursor` for the next page; null on the last")


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
    """Each line of an export between the first and the last."""

    created_at: Time
    vector: str = Field(description="base64 of float32, little-endian")
    image: str | None = Field(default=None, description="base64 of a JPEG")


class EnrolResult(Response):
    index: int = Field(description="place in the request, from 0")
    entry_id: int | None = None
    error: ItemError | None = None


class Enrolled(Response):
    enrolled: int
    failed: int
    results: list[EnrolResult]


class EnrolSummary(Response):
    """The last line of a stream of enrolments."""

    enrolled: int
    failed: int
    error: ItemError | None = Field(
        default=None, description="why it ended before its lines did; absent where it did not"
    )


class Person(Response):
    person_id: str
    entries: int
    cameras: int


class PersonPage(Response):
    persons: list[Person]
    next_cursor: str | None


class ErasureReceipt(Response):
    """Receipt of an erasure; it is given when what it counts is gone for good, and no restart brings it back."""

    gallery: str
    person_id: str | None = Field(default=None, description="absent where other than a person was erased")
    entries: int
    overwritten: bool = Field(
        description="true: overwritten in the database's file, and the write-ahead log cut off; false: a long read or "
        "the disk kept the log, which the next erasure or a restart catches up with"
    )
    erased_at: datetime


class ReEmbedding(Response):
    """How far a gallery is on its way to the loaded model."""

    gallery: str
    state: Literal["current", "needed", "running", "stopped"] = Field(
        description="current: its vectors are of the loaded model; needed: they are not, and nobody has asked for it; "
        "stopped: `problem` says what must be decided"
    )
    fingerprint: str = Field(description="of the model its vectors come from")
    entries: int
    done: int = Field(description="entries that have a vector of the loaded model")
    without_crop: int = Field(description="entries that keep no picture, or one that cannot be used")
    problem: str | None = Field(description="why it stopped, or why it waits to try again")
    erased: ErasureReceipt | None = Field(
        description="receipt of the entries without a picture that the last change erased"
    )
