"""Searches, comparisons, and what is said of a cosine."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pan_reid.schemas.base import ATTRIBUTES_MAX, Identifier, Request, Response, Scalar, Time


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


class Scored(Response):
    """What is said of a cosine."""

    probability: float | None = Field(
        default=None,
        description="that a pair of crops with this cosine is one person, if as many pairs are as are not; "
        "absent where the bundle has no calibration",
    )
    verdict: Literal["match", "unknown"] | None = Field(
        default=None, description="match: the cosine reaches the threshold; absent where none was asked for"
    )


class Decision(Response):
    threshold: float = Field(description="the cosine from which on it is a match")
    false_positive_rate: float | None = Field(default=None, description="absent where the threshold was given")
    calibrated_on: str | None = Field(default=None, description="the data that rate was measured on")


class Pair(Response):
    """The two images that are most alike, by their place in each set, from 0."""

    a: int
    b: int
    similarity: float


class Comparison(Scored):
    similarity: float = Field(description="cosine of the two sets, each fused by its mean; what is judged")
    best: Pair
    decision: Decision | None = Field(default=None, description="where a verdict was asked for")


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

    max_values: ClassVar[int] = 5000

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
    captured_from: Time | None = Field(default=None, description="only entries captured then or later")
    captured_until: Time | None = Field(default=None, description="only entries captured before then")
    attributes: dict[Identifier, Scalar | Annotated[list[Scalar], Field(max_length=100)]] = Field(
        default_factory=dict,
        max_length=ATTRIBUTES_MAX,
        description="only entries that have each of these attributes, with this value or any of this list",
    )
    fingerprint: str | None = Field(
        default=None,
        max_length=64,
        description="of the model that the vectors searched by come from; left out: the one that is loaded",
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
    rerank: Rerank | None = Field(default=None, description="order the best hits anew")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rerank is not None and self.group_by is not None:
            raise ValueError("rerank orders hits, so it does not go with group_by")
        if self.group_score != "best" and self.group_by is None:
            raise ValueError("group_score ranks persons, so it needs group_by")
        if self.rerank is not None and self.top_k > self.rerank.candidates:
            raise ValueError(f"top_k is {self.top_k} and rerank has {self.rerank.candidates} candidates; raise them")
        if self.captured_from and self.captured_until and self.captured_from >= self.captured_until:
            raise ValueError("captured_from must be before captured_until")
        return self


class Hit(Scored):
    entry_id: int
    score: float = Field(description="cosine, from -1 to 1")
    distance: float | None = Field(
        default=None, description="where re-ranked: what the hits are ordered by, from 0; no cosine and no probability"
    )
    person_id: str | None
    camera_id: str | None
    captured_at: datetime | None
    attributes: dict[str, Any]


class PersonHit(Scored):
    person_id: str
    score: float = Field(description="what persons are ranked and judged by: best, or mean")
    best: float = Field(description="cosine of the person's nearest entry")
    mean: float = Field(description="mean cosine over the person's entries that the filter lets through")
    entries: int = Field(description="how many those are")
    hits: list[Hit] = Field(description="the nearest of them")


class SearchAnswer(Response):
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
