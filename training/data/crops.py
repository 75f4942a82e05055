"""A data set as three lists of crops."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
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


def trainable(crops: Sequence[Crop]) -> tuple[list[Crop], IntArray]:
    """Crops of identities that a triplet can be made of (two crops and more), and their labels 0..K-1."""
    counts = Counter(crop.person for crop in crops)
    kept = [crop for crop in crops if crop.person > DISTRACTOR and counts[crop.person] > 1]
    labels = np.unique(persons(kept), return_inverse=True)[1] if kept else np.empty(0, np.int64)
    return kept, labels.astype(np.int64)
