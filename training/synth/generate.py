"""A data set of synthetic people in the layout of a public one, rendered by several processes. In Market-1501's:

    out/bounding_box_train/  out/query/  out/bounding_box_test/
    0001_c1s1_000001_00.jpg: person 1, camera 1, sequence 1, frame 1, box 0

Every crop is a pure function of (seed, person, camera, frame), so neither the number of workers nor the number of
people changes a file.
"""

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from bundle import PanError
from training.synth.camera import sample_camera
from training.synth.layouts import GALLERY, LAYOUTS, QUERY, TRAIN, CropId, complete
from training.synth.person import sample_person
from training.synth.scene import render, sample_shot


class SynthError(PanError):
    """The requested data set cannot be generated."""

    code = "synth"


@dataclass(frozen=True, slots=True)
class SynthSummary:
    """The written data set. Counts are numbers of images, except `identities` and `cameras`."""

    path: Path
    identities: int
    cameras: int
    train: int
    query: int
    gallery: int


@dataclass(frozen=True, slots=True)
class _Plan:
    folder: Path
    train_identities: int
    cameras: int
    crops_per_camera: int
    height: int
    width: int
    seed: int
    layout: str

    def crops(self, identity: int) -> list[CropId]:
        """All crops of a person; of a test person, the first one in each camera is the query."""
        test = identity > self.train_identities
        return [
            CropId((QUERY if index == 1 else GALLERY) if test else TRAIN, identity, camera, index)
            for camera in range(1, self.cameras + 1)
            for index in range(1, self.crops_per_camera + 1)
        ]


def generate(
    out: Path,
    *,
    train_identities: int,
    test_identities: int,
    cameras: int,
    crops_per_camera: int,
    height: int = 128,
    width: int = 64,
    seed: int = 0,
    layout: str = "market1501",
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> SynthSummary:
    """Render a data set into `out`, which must not exist or must be empty. It appears there only when it is complete.

    Identities 1..train_identities are for training, the next test_identities for the test; of these the first crop in
    each camera is the query and the others are the gallery. `layout` is one of LAYOUTS. `progress(done, total)` counts
    crops.

    Raises SynthError if `out` is not empty or a number is out of range.
    """
    _check(train_identities, test_identities, cameras, crops_per_camera, height, width, workers)
    if layout not in LAYOUTS:
        raise SynthError(f"layout {layout} is unknown; choose one of {', '.join(LAYOUTS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SynthError(f"{out} is not empty; choose another folder, or delete it first")
    partial_folder = out.absolute().with_name(f".{out.name}.partial-{os.getpid()}")
    plan = _Plan(partial_folder, train_identities, cameras, crops_per_camera, height, width, seed, layout)
    people = train_identities + test_identities
    each = cameras * crops_per_camera
    try:
        partial_folder.mkdir(parents=True)
        for done, _ in enumerate(_render_all(plan, people, workers), 1):
            if progress:
                progress(done * each, people * each)
        complete(layout, partial_folder, [crop for identity in range(1, people + 1) for crop in plan.crops(identity)])
        partial_folder.replace(out)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
    queries = test_identities * cameras
    return SynthSummary(out, people, cameras, train_identities * each, queries, test_identities * each - queries)


def _check(train: int, test: int, cameras: int, crops: int, height: int, width: int, workers: int) -> None:
    ranges = {
        "train_identities": (train, 0, 9999),
        "test_identities": (test, 0, 9999),
        "train_identities + test_identities": (train + test, 1, 9999),
        "cameras": (cameras, 2, 9),
        "crops_per_camera": (crops, 2, 999),
        "height": (height, 32, 1024),
        "width": (width, 16, 1024),
        "workers": (workers, 1, 256),
    }
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            raise SynthError(f"{name} is {value}; give a number from {low} to {high}")


def _render_all(plan: _Plan, people: int, workers: int) -> Iterator[None]:
    """Render each person; yields after each."""
    identities = range(1, people + 1)
    if workers == 1:
        yield from map(partial(_render_person, plan), identities)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(partial(_render_person, plan), identities)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _render_person(plan: _Plan, identity: int) -> None:
    """Write every crop of one person."""
    person = sample_person(plan.seed, identity)
    for crop in plan.crops(identity):
        camera = sample_camera(plan.seed, crop.camera)
        shot = sample_shot(plan.seed, identity, camera, crop.index - 1)
        pixels_HW3 = render(person, camera, shot, plan.height, plan.width)
        for name in LAYOUTS[plan.layout](crop):
            file = plan.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels_HW3).save(file, quality=camera.jpeg_quality)
