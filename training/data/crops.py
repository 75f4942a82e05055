"""A data set as three lists of crops."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

JUNK = -1  # the official rules remove these from the gallery before anything is counted
DISTRACTOR = 0  # nobody in the query set: always a negative

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Crop:
    """One picture of one person (an id of 1 and up, JUNK or DISTRACTOR) seen by one camera."""

    path: Path
    person: int
    camera: int


@dataclass(frozen=True, slots=True)
class ReidData:
    """A split data set; the identities of `train` do not occur in `query` and `gallery`.

    `notice` is what whoever uses the set, or a model trained on it, has to know.
    """

    name: str
    train: tuple[Crop, ...]
    query: tuple[Crop, ...]
    gallery: tuple[Crop, ...]
    notice: str = field(default="", kw_only=True)

    def without_junk(self) -> "ReidData":
        """The same without the gallery's junk, which no figure counts, so that nothing is spent on it."""
        return replace(self, gallery=tuple(crop for crop in self.gallery if crop.person != JUNK))


def persons(crops: Sequence[Crop]) -> IntArray:
    """Person ids of the crops, (n,) int64."""
    return np.array([crop.person for crop in crops], dtype=np.int64)


def cameras(crops: Sequence[Crop]) -> IntArray:
    """Camera ids of the crops, (n,) int64."""
    return np.array([crop.camera for crop in crops], dtype=np.int64)


def shared_persons(data: ReidData) -> set[int]:
    """People who are in train and in query or gallery: of a usable data set, none."""
    test = {crop.person for crop in (*data.query, *data.gallery) if crop.person > DISTRACTOR}
    return test & {crop.person for crop in data.train}


def unmatched(query: Sequence[Crop], gallery: Sequence[Crop]) -> list[Crop]:
    """Queries whose person has no crop under another camera in the gallery: the official rules skip them.

    Junk and distractors are no person, so a query of theirs matches nothing.
    """
    seen_by: defaultdict[int, set[int]] = defaultdict(set)
    for crop in gallery:
        seen_by[crop.person].add(crop.camera)
    return [crop for crop in query if crop.person <= DISTRACTOR or not seen_by[crop.person] - {crop.camera}]


def not_evaluable_reason(data: ReidData) -> str:
    """Why no figure can be measured on query and gallery; an empty string where one can."""
    if not data.query or not data.gallery:
        counts = f"{len(data.query)} query and {len(data.gallery)} gallery crops"
        return f"{data.name} has no query and gallery to evaluate on ({counts})"
    if len(unmatched(data.query, data.gallery)) == len(data.query):
        return f"no query of {data.name} has its person in the gallery under another camera"
    return ""


def trainable(crops: Sequence[Crop]) -> tuple[list[Crop], IntArray]:
    """Crops of identities that a triplet can be made of (two crops and more), and their labels 0..K-1."""
    counts = Counter(crop.person for crop in crops)
    kept = [crop for crop in crops if crop.person > DISTRACTOR and counts[crop.person] > 1]
    labels = np.unique(persons(kept), return_inverse=True)[1] if kept else np.empty(0, np.int64)
    return kept, labels.astype(np.int64)


def describe_excluded(crops: Sequence[Crop]) -> str:
    """What `trainable` leaves out and why; an empty string where it keeps everything."""
    counts = Counter(crop.person for crop in crops)
    nobody = sum(counts[person] for person in (JUNK, DISTRACTOR))
    single = sum(count == 1 for person, count in counts.items() if person > DISTRACTOR)
    found = (
        (nobody, f"{nobody} crops of nobody (files named -1_ or 0000_)"),
        (single, f"{single} crops that are the only one of their person"),
    )
    return " and ".join(words for count, words in found if count)
