"""The crops that a bundle is measured on: a sample of the data set with the same proportions."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from bundle import load_bundle
from export.parity.samples import read_samples, subsample_persons, synthetic_samples
from tests.export.command import pan_export
from tests.export.conftest import SPEC
from training.data import Crop, ReidData


def market_proportions() -> ReidData:
    """The counts of Market-1501's test split: 750 people, 2,793 distractors, 3,819 crops of junk, 3,368 queries."""
    query, gallery = [], []
    for index in range(3368):
        query.append(Crop(Path(f"q{index}"), 1 + index % 750, 1 + index // 750))
    for index in range(13_120):
        gallery.append(Crop(Path(f"g{index}"), 1 + index % 750, 1 + index // 750 % 6))
    gallery += [Crop(Path(f"d{index}"), 0, 1 + index % 6) for index in range(2793)]
    gallery += [Crop(Path(f"j{index}"), -1, 1 + index % 6) for index in range(3819)]
    return ReidData("market", (), tuple(query), tuple(gallery))


def test_a_sampled_gallery_keeps_its_share_of_distractors_and_has_no_junk() -> None:
    whole = market_proportions()
    some = subsample_persons(whole, 2000)
    kinds = [crop.person for crop in some.gallery]
    assert -1 not in kinds
    assert 1900 < len(kinds) < 2100
    assert abs(kinds.count(0) / len(kinds) - 2793 / 15_913) < 0.01
    kept = {crop.person for crop in some.query}
    assert kept == set(kinds) - {0}
    for side in ("query", "gallery"):  # people are kept whole
        of_kept = [crop for crop in getattr(whole, side) if crop.person in kept]
        assert [crop for crop in getattr(some, side) if crop.person != 0] == of_kept
    assert {crop.person for crop in subsample_persons(whole, 20_000).gallery} == set(range(751))


def test_persons_without_a_matching_query_are_sampled_as_distractors() -> None:
    """They are sampled by crop; persons with a query are sampled as a whole."""
    query = [Crop(Path(f"q{person}"), person, 1) for person in range(1, 101)]
    gallery = [Crop(Path(f"g{person}"), person, 2 if person > 98 else 1) for person in range(1, 101)]
    some = subsample_persons(ReidData("few", (), tuple(query), tuple(gallery)), 10)
    assert {crop.person for crop in some.query} <= {99, 100}
    assert some.query
    assert len(some.gallery) == 1 + 10


def write_set(folder: Path, distractors: int, of_first: int) -> Path:
    """Market-1501 files of synthetic people: 8 to train on, 16 to find, of whom the first has `of_first` crops more."""
    crops = synthetic_samples(SPEC, 64).images_NHW3
    count = 0

    def save(side: str, person: int, camera: int) -> None:
        nonlocal count
        name = f"{person:04d}_c{camera}s1_{count:06d}_00.png" if person >= 0 else f"-1_c{camera}s1_{count:06d}_00.png"
        (folder / side).mkdir(parents=True, exist_ok=True)
        Image.fromarray(crops[count % len(crops)]).save(folder / side / name)
        count += 1

    for person in range(1, 25):
        for camera in (1, 2):
            side = ("query" if camera == 1 else "bounding_box_test") if person > 8 else "bounding_box_train"
            save(side, person, camera)
    for _ in range(of_first):
        save("bounding_box_test", 9, 2)
    for _ in range(distractors):
        save("bounding_box_test", 0, 3)
        save("bounding_box_test", -1, 3)
    return folder


def test_junk_is_not_embedded(tmp_path: Path) -> None:
    samples = read_samples(write_set(tmp_path / "set", distractors=10, of_first=0), SPEC, 8, 1000)
    seen = []
    samples.embedded(lambda images: (seen.append(len(images)), np.eye(len(images), 64, dtype=np.float32))[1])
    assert sum(seen) == 16 + 16 + 10


def test_thresholds_are_omitted_if_the_sampled_gallery_has_too_few_distractors(
    checkpoint: Path, tmp_path: Path
) -> None:
    representative = read_samples(write_set(tmp_path / "even", distractors=16, of_first=0), SPEC, 8, 8)
    ranked = representative.embedded(lambda images: np.eye(len(images), 64, dtype=np.float32))
    assert (ranked.data, representative.no_thresholds_reason) == ("even, 1 in 4 persons and distractors", "")
    # the person with most of the crops is kept, so few of the crops are of distractors
    skewed = write_set(tmp_path / "skewed", distractors=16, of_first=40)
    small = ("--dim", 4, "--images", 8, "--ranked", 8, "--json")
    done = pan_export("onnx", checkpoint, tmp_path / "bundle", "--data", skewed, *small)
    assert done.returncode == 0, done.stderr
    assert "raise --ranked" in json.loads(done.stdout)["no_thresholds"]
    manifest = load_bundle(tmp_path / "bundle").manifest
    assert manifest.calibration is None
    assert manifest.evaluation is not None
