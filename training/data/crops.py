"""A data set as three lists of crops."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

JUNK = -1  # removed from the gallery by the official protocol
DISTRACTOR = 0  # not in the query set: always a negative

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Crop:
    """One picture of one person (id from 1, JUNK or DISTRACTOR) from one camera."""

    path: Path
    person: int
    camera: int


@dataclass(frozen=True, slots=True)
class ReidData:
    """A split data set; the identities of `train` do not occur in `query` and `gallery`.

    `notice` is a notice for users of the data set and of models trained on it.
    """

    name: str
    train: tuple[Crop, ...]
    query: tuple[Crop, ...]
    gallery: tuple[Crop, ...]
    notice: str = field(default="", kw_only=True)

    def without_junk(self) -> "ReidData":
        """A copy without the junk of the gallery, which no measurement uses."""
        return replace(self, gallery=tuple(crop for crop in self.gallery if crop.person != JUNK))


def persons(crops: Sequence[Crop]) -> IntArray:
    """Person ids of the crops, (n,) int64."""
    return np.array([crop.person for crop in crops], dtype=np.int64)


def cameras(crops: Sequence[Crop]) -> IntArray:
    """Camera ids of the crops, (n,) int64."""
    return np.array([crop.camera for crop in crops], dtype=np.int64)


def shared_persons(data: ReidData) -> set[int]:
    """Persons that are in train and in query or gallery; a usable data set has none."""
    test = {crop.person for crop in (*data.query, *data.gallery) if crop.person > DISTRACTOR}
    return test & {crop.person for crop in data.train}


def unmatched(query: Sequence[Crop], gallery: Sequence[Crop]) -> list[Crop]:
    """Queries without a gallery crop of the same person from another camera; the official protocol skips them.

    Junk and distractors are not persons, so queries of them are included.
    """
    seen_by: defaultdict[int, set[int]] = defaultdict(set)
    for crop in gallery:
        seen_by[crop.person].add(crop.camera)
    return [crop for crop in query if crop.person <= DISTRACTOR or not seen_by[crop.person] - {crop.camera}]


def limit_training(data: ReidData, identities: int | None, crops: int | None) -> ReidData:
    """The data set with at most this many training identities and crops of each; None: no limit.

    Both are drawn at random, always in the same way: a smaller subset is part of a larger one.
    """
    if identities is None and crops is None:
        return data
    rng = np.random.default_rng(0)
    people = np.unique([crop.person for crop in data.train if crop.person > DISTRACTOR])
    chosen = set(rng.permutation(people)[:identities].tolist())
    taken: Counter[int] = Counter()
    kept = []
    for index in rng.permutation(len(data.train)):
        crop = data.train[index]
        if crop.person in chosen and (crops is None or taken[crop.person] < crops):
            taken[crop.person] += 1
            kept.append(crop)
    limits = [f"{identities} identities"] * (identities is not None) + [f"{crops} crops each"] * (crops is not None)
    return replace(data, name=f"{data.name} ({', '.join(limits)})", train=tuple(kept))


def not_evaluable_reason(data: ReidData) -> str:
    """Why query and gallery cannot be evaluated; an empty string if they can."""
    if not data.query or not data.gallery:
        counts = f"{len(data.query)} query and {len(data.gallery)} gallery crops"
        return f"{data.name} has no query or no gallery to evaluate ({counts})"
    if len(unmatched(data.query, data.gallery)) == len(data.query):
        return f"no query of {data.name} has its person in the gallery under another camera"
    return ""


def trainable(crops: Sequence[Crop]) -> tuple[list[Crop], IntArray]:
    """Crops of identities with at least two crops, which triplets need, and their labels 0..K-1."""
    counts = Counter(crop.person for crop in crops)
    kept = [crop for crop in crops if crop.person > DISTRACTOR and counts[crop.person] > 1]
    labels = np.unique(persons(kept), return_inverse=True)[1] if kept else np.empty(0, np.int64)
    return kept, labels.astype(np.int64)


def describe_excluded(crops: Sequence[Crop]) -> str:
    """What `trainable` excludes and why; an empty string if it keeps everything."""
    counts = Counter(crop.person for crop in crops)
    nobody = sum(counts[person] for person in (JUNK, DISTRACTOR))
    single = sum(count == 1 for person, count in counts.items() if person > DISTRACTOR)
    found = (
        (nobody, f"{nobody} crops of junk or distractors (files named -1_ or 0000_)"),
        (single, f"{single} crops of persons with a single crop"),
    )
    return " and ".join(words for count, words in found if count)
