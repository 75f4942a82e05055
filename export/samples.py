"""The crops that an engine is measured on: real ones from a data set, or synthetic people where there is none.

Noise is not enough: it drives every part of the network to the same few activations.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bundle import ImageArray, InputSpec
from training.data import CropStore, read_data
from training.errors import DataError
from training.synth import render, sample_camera, sample_person, sample_shot

SYNTHETIC_CAMERAS = 4


@dataclass(frozen=True, slots=True)
class Samples:
    """Crops and what to call them."""

    name: str
    images_NHW3: ImageArray


def read_samples(path: Path, spec: InputSpec, count: int) -> Samples:
    """At most `count` crops spread evenly over query and gallery, or over the training crops where those are empty.

    Raises DataError.
    """
    data = read_data(path)
    crops = [*data.query, *data.gallery] or list(data.train)
    if len(crops) < 2:
        raise DataError(f"{path} has {len(crops)} crops; measuring takes two and more")
    chosen = np.linspace(0, len(crops) - 1, min(count, len(crops))).round().astype(np.int64)
    return Samples(data.name, CropStore(crops, spec, cache_gib=0).get(chosen))


def synthetic_samples(spec: InputSpec, count: int, seed: int = 0) -> Samples:
    """`count` renderings of synthetic people, each person once in every camera."""
    cameras = [sample_camera(seed, number) for number in range(1, SYNTHETIC_CAMERAS + 1)]
    images = []
    for index in range(count):
        identity, camera = 1 + index // len(cameras), cameras[index % len(cameras)]
        shot = sample_shot(seed, identity, camera, 0)
        images.append(render(sample_person(seed, identity), camera, shot, spec.height, spec.width))
    return Samples(f"synthetic people, seed {seed}", np.stack(images))
