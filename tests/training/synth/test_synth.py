"""Synthetic people: files that depend on the seed alone, Market-1501's layout, a task that colour does not solve."""

import hashlib
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bundle import PanError
from training.synth import generate, histogram_features, render, sample_camera, sample_person, sample_shot

NAME = re.compile(r"(\d{4})_c(\d)s1_(\d{6})_00\.jpg")


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def small(out: Path, **changes: int) -> Path:
    asked: dict[str, Any] = {"train_identities": 2, "test_identities": 2, "cameras": 3, "crops_per_camera": 2}
    generate(out, **asked | {"workers": 1} | changes)
    return out


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("synth") / "world")


def test_two_workers_write_the_same_bytes_as_one(world: Path, tmp_path: Path) -> None:
    assert digests(small(tmp_path / "again", workers=2)) == digests(world)


def test_another_seed_is_another_world(world: Path, tmp_path: Path) -> None:
    other = digests(small(tmp_path / "other", seed=1))
    assert other.keys() == digests(world).keys()
    assert not set(other.values()) & set(digests(world).values())


def test_a_crop_does_not_depend_on_how_many_people_there_are(world: Path, tmp_path: Path) -> None:
    fewer = small(tmp_path / "fewer", train_identities=1, test_identities=0)
    assert digests(fewer).items() <= digests(world).items()


def test_layout_is_market_1501(world: Path) -> None:
    found: dict[str, list[tuple[int, int]]] = {}
    for path in world.rglob("*.jpg"):
        match = NAME.fullmatch(path.name)
        assert match, path.name
        found.setdefault(path.parent.name, []).append((int(match[1]), int(match[2])))
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 128))
    assert set(found) == {"bounding_box_train", "query", "bounding_box_test"}
    each = dict.fromkeys((1, 2, 3), 1)
    assert Counter(found["bounding_box_train"]) == {(p, c): 2 for p in (1, 2) for c in each}
    assert Counter(found["query"]) == {(p, c): 1 for p in (3, 4) for c in each}
    assert Counter(found["bounding_box_test"]) == {(p, c): 1 for p in (3, 4) for c in each}


def test_summary_and_progress_count_the_written_files(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    summary = generate(
        tmp_path / "out",
        train_identities=1,
        test_identities=2,
        cameras=2,
        crops_per_camera=3,
        height=96,
        width=32,
        workers=1,
        progress=lambda done, total: seen.append((done, total)),
    )
    files = Counter(path.parent.name for path in (tmp_path / "out").rglob("*.jpg"))
    assert (summary.train, summary.query, summary.gallery) == (6, 4, 8)
    assert files == {"bounding_box_train": 6, "query": 4, "bounding_box_test": 8}
    assert seen == [(6, 18), (12, 18), (18, 18)]
    with Image.open(tmp_path / "out" / "query" / "0002_c1s1_000001_00.jpg") as image:
        assert image.size == (32, 96)


def test_a_folder_with_something_in_it_is_refused_and_kept(world: Path) -> None:
    before = digests(world)
    with pytest.raises(PanError, match="is not empty; choose another folder"):
        small(world)
    assert digests(world) == before


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert len(digests(small(tmp_path, train_identities=1, test_identities=0))) == 6


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, workers: int) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(
            tmp_path / "out",
            train_identities=4,
            test_identities=0,
            cameras=2,
            crops_per_camera=2,
            workers=workers,
            progress=interrupt,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": 10}, "cameras is 10; give a number from 2 to 9"),
        ({"crops_per_camera": 1}, "crops_per_camera is 1"),
        ({"train_identities": 0, "test_identities": 0}, "train_identities . test_identities is 0"),
        ({"train_identities": 9999}, "is 10001; give a number from 1 to 9999"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, changes: dict[str, int], message: str) -> None:
    with pytest.raises(PanError, match=message):
        small(tmp_path / "out", **changes)
    assert list(tmp_path.iterdir()) == []


def test_cameras_see_one_person_in_different_colours() -> None:
    person = sample_person(0, 1)
    first = sample_camera(0, 1)
    shot = sample_shot(0, 1, first, 0)
    means = np.stack([render(person, sample_camera(0, n), shot, 128, 64).mean((0, 1)) for n in range(1, 5)])
    apart = np.abs(means[:, None] - means[None]).max(-1)[np.triu_indices(4, 1)]
    assert apart.min() > 5, "two cameras with nearly the same colours"
    assert np.ptp(means[:, 0] / means[:, 2]) > 0.15, "the ratio of red to blue should change with the camera"


def test_a_chest_print_is_seen_from_the_front_and_not_from_behind() -> None:
    printed = next(p for i in range(1, 200) if (p := sample_person(0, i)).chest and not p.bag and p.hair == "short")
    camera = sample_camera(0, 1)
    shot = replace(sample_shot(0, 1, camera, 0), obstacle=None, passer_by=None)
    without = replace(printed, chest=None)

    def change(turn: float) -> int:
        turned = replace(shot, turn=turn)
        a, b = (render(p, camera, turned, 128, 64).astype(int) for p in (printed, without))
        return int((np.abs(a - b).max(-1) > 8).sum())

    assert change(0.0) > 30
    assert change(np.pi) == 0


def test_histograms_have_unit_length_and_know_colours_and_places() -> None:
    red, blue = np.zeros((2, 96, 48, 3), np.uint8)
    red[..., 0] = red[:48, :, 1] = 200
    blue[..., 2] = blue[:48, :, 1] = 200
    features = histogram_features(np.stack([red, red[::-1], blue]))
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(features @ features.T, np.eye(3), atol=1e-6)


def test_colour_alone_tells_people_apart_a_little_and_no_more() -> None:
    people, cameras, crops = 40, 4, 2
    seen = [sample_camera(0, number) for number in range(1, cameras + 1)]
    images, identity, camera, index = [], [], [], []
    for i in range(1, people + 1):
        person = sample_person(0, i)
        for one in seen:
            for k in range(crops):
                images.append(render(person, one, sample_shot(0, i, one, k), 128, 64))
                identity.append(i)
                camera.append(one.number)
                index.append(k)
    who, where, frame = np.array(identity), np.array(camera), np.array(index)
    features = histogram_features(np.stack(images))
    similarity = features @ features.T
    gallery = np.flatnonzero(frame > 0)
    precisions = []
    for query in np.flatnonzero(frame == 0):
        kept = gallery[(who[gallery] != who[query]) | (where[gallery] != where[query])]
        ranked = kept[np.argsort(-similarity[query, kept], kind="stable")]
        ranks = np.flatnonzero(who[ranked] == who[query]) + 1
        precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    mAP = 100 * float(np.mean(precisions))
    assert 10 < mAP < 45
