"""The crops that an engine is measured on: from a data set, or synthetic people without one.

Random noise is not enough: it leads to nearly the same activations everywhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bundle import ImageArray, InputSpec
from training.data import Crop, CropStore, ReidData, not_evaluable_reason, read_data, unmatched
from training.data.crops import DISTRACTOR
from training.embed import Embed, embed_data
from training.errors import DataError
from training.evaluation import Embedded, Labels
from training.synth import render, sample_camera, sample_person, sample_shot

SYNTHETIC_CAMERAS = 4
BATCH = 32


@dataclass(frozen=True, slots=True)
class Samples:
    """Crops for comparing descriptors, query and gallery for comparing rankings, and their name.

    `no_thresholds_reason` says why thresholds cannot be measured on this gallery; empty if they can.
    """

    name: str
    images_NHW3: ImageArray
    embedded: Callable[[Embed], Embedded]
    no_thresholds_reason: str = ""


def load_samples(data: Path | None, spec: InputSpec, images: int, ranked: int) -> Samples:
    """Samples from `data`, or synthetic people without it; see `read_samples` and `synthetic_samples`."""
    return read_samples(data, spec, images, ranked) if data else synthetic_samples(spec, images)


def read_samples(path: Path, spec: InputSpec, images: int, ranked: int = 2000) -> Samples:
    """At most `images` crops, spread evenly over query and gallery, and about `ranked` crops of whole persons to rank.

    Raises DataError if the data set has no test split to rank.
    """
    data = read_data(path).without_junk()
    if why := not_evaluable_reason(data):
        raise DataError(f"{why}; engines are compared by their ranking of a test split, so choose a data set with one")
    some = subsample_persons(data, ranked)
    shares = _distractor_share(some), _distractor_share(data)
    no_thresholds_reason = ""
    if shares[0] < shares[1] / 2:
        no_thresholds_reason = (
            f"distractors are {shares[0]:.0%} of the {len(some.gallery)} ranked gallery crops and "
            f"{shares[1]:.0%} of the whole gallery; raise --ranked"
        )
    crops = _read(_evenly_spaced([*data.query, *data.gallery], images), spec)
    return Samples(data.name, crops, lambda embed: embed_data(embed, some, spec), no_thresholds_reason)


def subsample_persons(data: ReidData, ranked: int) -> ReidData:
    """The test split reduced to about `ranked` gallery crops, without junk and queries without a match.

    Every n-th person with a query is kept with all crops. Of the distractors (here: all crops of persons without a
    query) every n-th crop is kept, so that their share of the gallery stays the same.
    """
    data = data.without_junk()
    every = -(-len(data.gallery) // ranked)
    if every <= 1:
        return data
    skipped = set(unmatched(data.query, data.gallery))
    query = [crop for crop in data.query if crop not in skipped]
    people = sorted({crop.person for crop in query})
    queried, kept = set(people), set(people[::every])
    distractors = set([crop for crop in data.gallery if crop.person not in queried][::every])
    return ReidData(
        f"{data.name}, 1 in {every} persons and distractors",
        (),
        tuple(crop for crop in query if crop.person in kept),
        tuple(crop for crop in data.gallery if crop.person in kept or crop in distractors),
    )


def _distractor_share(data: ReidData) -> float:
    queried = {crop.person for crop in data.query}
    return sum(crop.person not in queried for crop in data.gallery) / len(data.gallery)


def synthetic_samples(spec: InputSpec, count: int, seed: int = 0) -> Samples:
    """`count` renderings of synthetic people, each person once in every camera. The first camera has the queries."""
    cameras = [sample_camera(seed, number) for number in range(1, SYNTHETIC_CAMERAS + 1)]
    people = [1 + index // len(cameras) for index in range(count)]
    seen_by = [index % len(cameras) for index in range(count)]
    images_NHW3 = np.stack(
        [
            render(
                sample_person(seed, person),
                cameras[camera],
                sample_shot(seed, person, cameras[camera], 0),
                spec.height,
                spec.width,
            )
            for person, camera in zip(people, seen_by, strict=True)
        ]
    )
    person, camera = np.array(people), np.array(seen_by)
    query = camera == 0
    name = f"synthetic people, seed {seed}"

    def embedded(embed: Embed) -> Embedded:
        rows_ND = np.concatenate([embed(images_NHW3[start : start + BATCH]) for start in range(0, count, BATCH)])
        sides = [(rows_ND[side], Labels(person[side], camera[side])) for side in (query, ~query)]
        return Embedded(*sides[0], *sides[1], name)

    return Samples(name, images_NHW3, embedded)


def calibration_crops(data: Path | None, spec: InputSpec, count: int) -> ImageArray:
    """Crops for INT8 calibration: training crops of `data`, never those of the comparison.

    Without `data`, other synthetic people. Raises DataError if `data` has no training crops.
    """
    if data is None:
        return synthetic_samples(spec, count, seed=1).images_NHW3
    return _read(training_crops(data, count), spec)


def training_crops(data: Path, count: int) -> list[Crop]:
    """At most `count` training crops, spread evenly. Raises DataError if there are none."""
    train = [crop for crop in read_data(data).train if crop.person > DISTRACTOR]
    if not train:
        raise DataError(f"{data} has no training crops; pass a data set with a train split")
    return _evenly_spaced(train, count)


def _evenly_spaced(crops: Sequence[Crop], count: int) -> list[Crop]:
    chosen = np.linspace(0, len(crops) - 1, min(count, len(crops))).round().astype(np.int64)
    return [crops[index] for index in chosen]


def _read(crops: Sequence[Crop], spec: InputSpec) -> ImageArray:
    return CropStore(crops, spec, cache_gib=0).get(np.arange(len(crops)))
