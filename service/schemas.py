"""The members of requests and answers of the API, v1; the client gives them to its caller.

Pixels and vectors never pass through these models: they would be copied number by number.
"""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from bundle import Calibration, Parity

_ATTRIBUTES_MAX = 32

GalleryName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
Scalar = Annotated[str, StringConstraints(max_length=512)] | bool | int | float | None
Attributes = dict[Identifier, Scalar]


def _from_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"in a form this is a JSON text ({error})") from None


_OrItsText = BeforeValidator(_from_text)


class Request(BaseModel):
    """Unknown members are refused: a typing error must not become a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Answer(BaseModel):
    """Members may be added in later releases; a client ignores those it does not know."""

    model_config = ConfigDict(frozen=True)


# -- galleries


Days = Annotated[float, Field(gt=0, le=36_500)]


class GalleryCreate(Request):
    name: GalleryName
    purpose: str = Field(default="", max_length=500, description="what the gallery is for, for the record")
    retention_days: Days | None = Field(
        default=None,
        description="an entry expires so long after it was captured, or after it was enrolled where that is unknown or "
        "earlier; it answers no search from then on, and is erased within a minute; 0.5 is 12 hours; null: never",
    )


class GalleryUpdate(Request):
    """Members that are given replace those of the gallery."""

    purpose: str = Field(default="", max_length=500)
    retention_days: Days | None = Field(default=None, description="of the entries that are there, too; null: for good")


class Gallery(Answer):
    name: str
    purpose: str
    index: str = Field(description="index kind; `flat` is exact")
    fingerprint: str = Field(description="of the model its vectors come from")
    dim: int
    created_at: datetime
    retention_days: float | None = Field(description="null: entries are kept until they are deleted")
    searchable: bool = Field(description="false when it was enrolled with another model than the one that is loaded")
    entries: int
    persons: int


class GalleryList(Answer):
    galleries: list[Gallery]


# -- entries


class EntryInfo(Request):
    """What is known of a crop."""

    person_id: Identifier | None = None
    camera_id: Identifier | None = None
    captured_at: AwareDatetime | None = Field(default=None, description="with a time zone")
    attributes: Attributes = Field(default_factory=dict, max_length=_ATTRIBUTES_MAX, description="anything else, flat")


class EntryUpdate(Request):
    """Members that are given replace those of the entry; null clears one."""

    person_id: Identifier | None = None
    camera_id: Identifier | None = None
    captured_at: AwareDatetime | None = None
    attributes: Attributes = Field(default_factory=dict, max_length=_ATTRIBUTES_MAX)


class Entry(Answer):
    entry_id: int
    person_id: str | None
    camera_id: str | None
    captured_at: datetime | None
    attributes: dict[str, Any]
    created_at: datetime


class EntryPage(Answer):
    entries: list[Entry]
    next_cursor: str | None = Field(description="give it as `cursor` for the next page; null on the last")


class ExportedGallery(Request):
    """The first line of an export."""

    format: Literal["pan-gallery"]
    version: Literal[1]
    fingerprint: str
    dim: int
    purpose: str = Field(max_length=500)
    retention_days: Days | None


class ExportedEntry(EntryInfo):
    """Each line of an export between the first and the last."""

    created_at: AwareDatetime
    vector: str = Field(description="base64 of float32, little-endian")


class ItemError(Answer):
    """Why one item of a request failed; the others did not."""

    code: str
    detail: str


class EnrolResult(Answer):
    index: int = Field(description="place in the request, from 0")
    entry_id: int | None = None
    error: ItemError | None = None


class Enrolled(Answer):
    enrolled: int
    failed: int
    results: list[EnrolResult]


# -- persons


class Person(Answer):
    person_id: str
    entries: int
    cameras: int


class PersonPage(Answer):
    persons: list[Person]
    next_cursor: str | None


class Erased(Answer):
    """Receipt of an erasure; it is given when what it counts is gone for good, and no restart brings it back."""

    gallery: str
    person_id: str | None = Field(default=None, description="absent where other than a person was erased")
    entries: int
    overwritten: bool = Field(
        description="true: overwritten in the database's file, and the write-ahead log cut off; false: a long read or "
        "the disk kept the log, which the next erasure or a restart catches up with"
    )
    erased_at: datetime


# -- is it the same person?


class DecisionOptions(Request):
    """How to decide; without either there is no verdict."""

    false_positive_rate: float | None = Field(
        default=None, description="of a pair of strangers: one of the rates in the calibration that /v1/model shows"
    )
    threshold: float | None = Field(
        default=None, ge=-1, le=1, description="a cosine of your own to decide by, in place of a stated rate"
    )

    @model_validator(mode="after")
    def _one_way_to_decide(self) -> Self:
        if self.false_positive_rate is not None and self.threshold is not None:
            raise ValueError("either false_positive_rate or threshold decides, not both")
        return self


class Judged(Answer):
    """What is said of a cosine."""

    probability: float | None = Field(
        default=None,
        description="that a pair of crops with this cosine is one person, if as many pairs are as are not; "
        "absent where the bundle has no calibration",
    )
    verdict: Literal["match", "unknown"] | None = Field(
        default=None, description="match: the cosine reaches the threshold; absent where none was asked for"
    )


class Decision(Answer):
    threshold: float = Field(description="the cosine from which on it is a match")
    false_positive_rate: float | None = Field(default=None, description="absent where the threshold was given")
    calibrated_on: str | None = Field(default=None, description="the data that rate was measured on")


class Pair(Answer):
    """The two images that are most alike, by their place in each set, from 0."""

    a: int
    b: int
    similarity: float


class Comparison(Judged):
    similarity: float = Field(description="cosine of the two sets, each fused by its mean; what is judged")
    best: Pair
    decision: Decision | None = Field(default=None, description="where a verdict was asked for")


# -- search


Fuse = Literal["mean", "best"]
_Named = Annotated[list[Identifier], Field(max_length=1000)]


class Rerank(Request):
    """k-reciprocal re-ranking of the best hits; the defaults are those of its paper for Market-1501."""

    candidates: int = Field(default=100, ge=2, le=1000, description="how many of the best hits it orders anew")
    k1: int = Field(default=20, ge=1, le=200)
    k2: int = Field(default=6, ge=1, le=100)
    share: float = Field(default=0.3, ge=0, le=1, alias="lambda", description="of the plain distance in the new one")


class SearchOptions(DecisionOptions):
    """How to search.

    Filters hold together: an entry answers when it passes each. Entries whose camera, person or time is unknown are not
    of any camera, person or time.
    `exclude_same_camera` drops entries of the query's own camera. `exclude_same_person_same_camera` drops only
    those of the query's camera that also are of the query's person: the rule by which re-identification is evaluated.
    Where the query is an entry, its camera and person are those of the entry unless given, and it never finds itself.
    In a form, `attributes` and `rerank` are JSON texts.
    """

    top_k: int = Field(default=10, ge=1, description="hits, or persons where grouped; the server has an upper limit")
    fuse: Fuse = Field(
        default="mean",
        description="of several images, vectors or entries: search by the mean of their vectors, or score each entry "
        "by the one that it is nearest to",
    )
    cameras: _Named | None = Field(default=None, description="only entries of these cameras")
    exclude_cameras: _Named = Field(default_factory=list)
    persons: _Named | None = Field(default=None, description="only entries of these persons")
    exclude_persons: _Named = Field(default_factory=list)
    captured_from: AwareDatetime | None = Field(default=None, description="only entries captured then or later")
    captured_until: AwareDatetime | None = Field(default=None, description="only entries captured before then")
    attributes: Annotated[dict[Identifier, Scalar | Annotated[list[Scalar], Field(max_length=100)]], _OrItsText] = (
        Field(
            default_factory=dict,
            max_length=_ATTRIBUTES_MAX,
            description="only entries that have each of these attributes, with this value or any of this list",
        )
    )
    camera_id: Identifier | None = Field(default=None, description="the query's own camera")
    person_id: Identifier | None = Field(default=None, description="the query's person, where known")
    exclude_same_camera: bool = False
    exclude_same_person_same_camera: bool = False
    group_by: Literal["person"] | None = Field(
        default=None, description="answer persons; entries without one are left out"
    )
    group_score: Literal["best", "mean"] = Field(
        default="best", description="rank persons by the score of their nearest entry, or by the mean over all of them"
    )
    examples: int = Field(default=3, ge=1, le=50, description="hits shown for each person")
    rerank: Annotated[Rerank | None, _OrItsText] = Field(default=None, description="order the best hits anew")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rerank is not None and self.group_by is not None:
            raise ValueError("rerank orders hits, so it does not go with group_by")
        if "group_score" in self.model_fields_set and self.group_by is None:
            raise ValueError("group_score ranks persons, so it needs group_by")
        if self.rerank is not None and self.top_k > self.rerank.candidates:
            raise ValueError(f"top_k is {self.top_k} and rerank has {self.rerank.candidates} candidates; raise them")
        if self.captured_from and self.captured_until and self.captured_from >= self.captured_until:
            raise ValueError("captured_from must be before captured_until")
        return self


class Hit(Judged):
    entry_id: int
    score: float = Field(description="cosine, from -1 to 1")
    distance: float | None = Field(
        default=None, description="where re-ranked: what the hits are ordered by, from 0; no cosine and no probability"
    )
    person_id: str | None
    camera_id: str | None
    captured_at: datetime | None
    attributes: dict[str, Any]


class PersonHit(Judged):
    person_id: str
    score: float = Field(description="what persons are ranked and judged by: best, or mean")
    best: float = Field(description="cosine of the person's nearest entry")
    mean: float = Field(description="mean cosine over the person's entries that the filter lets through")
    entries: int = Field(description="how many those are")
    hits: list[Hit] = Field(description="the nearest of them")


class SearchAnswer(Answer):
    gallery: str
    fused: int = Field(description="number of images, vectors or entries that make up the query")
    hits: list[Hit] | None = None
    persons: list[PersonHit] | None = Field(default=None, description="instead of hits where grouped by person")
    decision: Decision | None = Field(default=None, description="where a verdict was asked for")

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.hits is None) == (self.persons is None):
            raise ValueError("an answer has either hits or persons")
        return self


# -- embeddings


class EmbedOptions(Request):
    encoding: Literal["float", "base64"] = Field(default="float", description="base64: float32, little-endian")


class Embedding(Answer):
    index: int
    embedding: list[float] | str | None = None
    error: ItemError | None = None


class Embeddings(Answer):
    fingerprint: str
    dim: int
    embeddings: list[Embedding]


class Map(Answer):
    name: str = Field(description="masks, or compatibility_1 and so on for each block of part-aware attention")
    shape: list[int] = Field(description="parts, height, width")
    values: list[list[list[float]]] | str = Field(description="or base64: float32, little-endian, rows first")


class Explanation(Answer):
    index: int
    maps: list[Map] | None = None
    error: ItemError | None = None


class Explanations(Answer):
    fingerprint: str
    explanations: list[Explanation]


# -- the service itself


class Model(Answer):
    architecture: str
    variant: str
    backbone: str
    parts: int
    parameters: int
    fingerprint: str
    dim: int
    input_height: int
    input_width: int
    engine: str = Field(description="the runtime: onnxruntime, openvino, tensorrt or tensorrt_rtx")
    device: str
    precision: str
    file: str = Field(description="the engine file of the bundle")
    reason: str = Field(description="why this engine runs, and what was passed over")
    max_batch: int = Field(description="crops an engine run")
    parity: Parity = Field(description="how well the file agrees with PyTorch, and on what that was measured")
    evaluation: dict[str, Any] | None
    calibration: Calibration | None = Field(description="how cosines become decisions; null: by thresholds of your own")
    licence_notes: str


class Health(Answer):
    status: Literal["ok"] = "ok"


class Problem(Answer):
    """RFC 9457. `code` is stable and meant for programs, `detail` for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[dict[str, Any]] | None = None

    @field_validator("status")
    @classmethod
    def _an_error(cls, status: int) -> int:
        if status < 400:
            raise ValueError("a problem has a status of 400 or more")
        return status
