"""Searches, comparisons and decisions."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pan_reid.schemas.base import ATTRIBUTES_MAX, Identifier, Request, Response, Scalar, Time


class DecisionOptions(Request):
    """The threshold for match or unknown. Without an option there is no verdict."""

    false_positive_rate: float | None = Field(
        default=None,
        description="rate of matches among pairs of different persons: one of the rates in the "
        "calibration of /v1/model",
    )
    threshold: float | None = Field(
        default=None, ge=-1, le=1, description="cosine from which a pair is a match, instead of a rate"
    )

    @model_validator(mode="after")
    def _one_way_to_decide(self) -> Self:
        if self.false_positive_rate is not None and self.threshold is not None:
            raise ValueError("give false_positive_rate or threshold, not both")
        return self


class Scored(Response):
    """Probability and verdict for a cosine."""

    probability: float | None = Field(
        default=None,
        description="that a pair of crops with this cosine is one person, at even prior odds; absent if the bundle has "
        "no calibration",
    )
    verdict: Literal["match", "unknown"] | None = Field(
        default=None, description="match: the cosine is at least the threshold; absent if none was requested"
    )


class Decision(Response):
    threshold: float = Field(description="smallest cosine of a match")
    false_positive_rate: float | None = Field(default=None, description="absent if the request gave the threshold")
    calibrated_on: str | None = Field(default=None, description="data of the calibration")


class Pair(Response):
    """The most similar pair of images, by their positions in the two sets, from 0."""

    a: int
    b: int
    similarity: float


class Comparison(Scored):
    similarity: float = Field(description="cosine of the mean vectors of the two sets; the verdict is about this value")
    best: Pair
    decision: Decision | None = Field(default=None, description="present if a verdict was requested")


Fuse = Literal["mean", "best"]
_Named = Annotated[list[Identifier], Field(max_length=1000)]


class Rerank(Request):
    """k-reciprocal re-ranking of the best hits (Zhong et al., CVPR 2017). Defaults: those for Market-1501."""

    candidates: int = Field(default=100, ge=2, le=1000, description="number of best hits to re-rank")
    k1: int = Field(default=20, ge=1, le=200)
    k2: int = Field(default=6, ge=1, le=100)
    share: float = Field(
        default=0.3, ge=0, le=1, alias="lambda", description="weight of the original distance in the re-ranked distance"
    )


class SearchOptions(DecisionOptions):
    """Options of a search.

    All filters apply together. An entry whose camera, person or time is unknown matches no camera, person or time.
    `exclude_same_camera` excludes the entries of the query's camera. `exclude_same_person_same_camera` excludes the
    entries of the query's person at the query's camera, as benchmarks of re-identification do.
    A query by entry uses the camera and person of that entry unless the request gives others, and excludes the entry
    itself. In a form, `attributes` and `rerank` are JSON texts.
    """

    max_values: ClassVar[int] = 5000

    top_k: int = Field(
        default=10, ge=1, description="number of hits, or of persons with `group_by`; the server has an upper limit"
    )
    fuse: Fuse = Field(
        default="mean",
        description="with several images, vectors or entries: search by the mean of their vectors, or score each entry "
        "by the nearest of them",
    )
    cameras: _Named | None = Field(default=None, description="only entries of these cameras")
    exclude_cameras: _Named = Field(default_factory=list)
    persons: _Named | None = Field(default=None, description="only entries of these persons")
    exclude_persons: _Named = Field(default_factory=list)
    captured_from: Time | None = Field(default=None, description="only entries captured at this time or later")
    captured_until: Time | None = Field(default=None, description="only entries captured before this time")
    attributes: dict[Identifier, Scalar | Annotated[list[Scalar], Field(max_length=100)]] = Field(
        default_factory=dict,
        max_length=ATTRIBUTES_MAX,
        description="only entries with each of these attributes; the value is a scalar, or a list of allowed scalars",
    )
    fingerprint: str | None = Field(
        default=None,
        max_length=64,
        description="of the model that made the query vectors; default: the loaded model",
    )
    camera_id: Identifier | None = Field(default=None, description="camera of the query")
    person_id: Identifier | None = Field(default=None, description="person of the query, if known")
    exclude_same_camera: bool = False
    exclude_same_person_same_camera: bool = False
    group_by: Literal["person"] | None = Field(
        default=None, description="return persons instead of hits; entries without a person are excluded"
    )
    group_score: Literal["best", "mean"] = Field(
        default="best",
        description="rank persons by the score of their nearest entry, or by the mean over their entries",
    )
    examples: int = Field(default=3, ge=1, le=50, description="number of hits for each person")
    rerank: Rerank | None = Field(default=None, description="re-rank the best hits")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rerank is not None and self.group_by is not None:
            raise ValueError("rerank orders hits, so it cannot be combined with group_by")
        if self.group_score != "best" and self.group_by is None:
            raise ValueError("group_score ranks persons, so it needs group_by")
        if self.rerank is not None and self.top_k > self.rerank.candidates:
            raise ValueError(
                f"top_k is {self.top_k} but rerank has only {self.rerank.candidates} candidates; raise candidates"
            )
        if self.captured_from and self.captured_until and self.captured_from >= self.captured_until:
            raise ValueError("captured_from must be before captured_until")
        return self


class Hit(Scored):
    entry_id: int
    score: float = Field(description="cosine, from -1 to 1")
    distance: float | None = Field(
        default=None, description="distance of the re-ranking, from 0, which orders the hits; absent without re-ranking"
    )
    person_id: str | None
    camera_id: str | None
    captured_at: datetime | None
    attributes: dict[str, Any]


class PersonHit(Scored):
    person_id: str
    score: float = Field(description="best or mean, as `group_score` selects; the verdict is about this value")
    best: float = Field(description="cosine of the person's nearest entry")
    mean: float = Field(description="mean cosine over the person's entries that pass the filters")
    entries: int = Field(description="number of the person's entries that pass the filters")
    hits: list[Hit] = Field(description="the nearest of these entries")


class SearchAnswer(Response):
    gallery: str
    fused: int = Field(description="number of images, vectors or entries in the query")
    hits: list[Hit] | None = None
    persons: list[PersonHit] | None = Field(default=None, description="instead of hits, if grouped by person")
    decision: Decision | None = Field(default=None, description="present if a verdict was requested")

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.hits is None) == (self.persons is None):
            raise ValueError("a response has either hits or persons")
        return self
