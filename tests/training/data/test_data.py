"""Readers, batches and augmentation."""

import shutil
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from bundle import InputSpec, load_crop
from tests.training.conftest import write_crop
from training.data import (
    AugmentConfig,
    CropStore,
    IdentitySampler,
    augment,
    limit_training,
    prefetch,
    read_data,
    trainable,
)
from training.data.crops import persons
from training.data.prefetch import AHEAD
from training.errors import DataError


def test_market_layout(market: Path) -> None:
    data = read_data(market)
    assert (len(data.train), len(data.query), len(data.gallery)) == (24, 6, 8)
    assert set(persons(data.gallery)) == {-1, 0, 7, 8, 9}
    assert {crop.camera for crop in data.train} == {1, 2}


def test_folders_hold_out_whole_identities(tmp_path: Path) -> None:
    for person in range(20):
        for camera in ("gate", "hall"):
            for frame in range(3):
                write_crop(tmp_path / f"person{person}" / f"{camera}_{frame}.png", person)
    data = read_data(tmp_path)
    train, test = {c.person for c in data.train}, {c.person for c in data.gallery}
    assert train
    assert test
    assert not train & test
    assert {c.person for c in data.query} == test
    assert len(data.query) == 2 * len(test)  # the first crop of each person in each camera
    assert len(data.train) + len(data.query) + len(data.gallery) == 120


def test_new_people_do_not_move_old_ones(tmp_path: Path) -> None:
    for person in range(12):
        write_crop(tmp_path / f"p{person}" / "a_0.png", person)
    before = {c.path for c in read_data(tmp_path).train}
    write_crop(tmp_path / "another" / "a_0.png", 99)
    assert before <= {c.path for c in read_data(tmp_path).train}


def test_csv_with_a_split(tmp_path: Path) -> None:
    write_crop(tmp_path / "x.png", 0)
    (tmp_path / "crops.csv").write_text(
        "path,person,camera,split\nx.png,anna,1,train\nx.png,bo,1,query\nx.png,bo,2,gallery\n"
    )
    data = read_data(tmp_path / "crops.csv")
    assert (len(data.train), len(data.query), len(data.gallery)) == (1, 1, 1)
    assert data.query[0].person == data.gallery[0].person != data.train[0].person


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,person\nx.png,1\n", "lacks the columns camera"),
        ("path,person,camera,split\nx.png,1,1,test\n", "line 2: split is 'test'"),
        ("path,person,camera,split\nx.png,1,1,train\nx.png,1,2,\n", "some rows have a split"),
        ("path,person,camera,split\nx.png,1,1,train\nx.png,1,2,query\n", "both in train and in query"),
        ("path,person,camera\n", "no rows"),
    ],
)
def test_an_error_in_a_csv_names_the_fault(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "crops.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        read_data(tmp_path / "crops.csv")


def test_missing_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set at"):
        read_data(tmp_path / "nothing")
    with pytest.raises(DataError, match="holds neither"):
        read_data(tmp_path)


def test_batches_are_a_pure_function_of_seed_and_step() -> None:
    labels = np.repeat(np.arange(10), 5)
    a, b = IdentitySampler(labels, 4, 3, seed=7), IdentitySampler(labels, 4, 3, seed=7)
    assert all((a(step) == b(step)).all() for step in (0, 5, 1000))
    assert any((a(step) != IdentitySampler(labels, 4, 3, seed=8)(step)).any() for step in range(3))


def test_batches_hold_p_identities_with_k_different_crops() -> None:
    labels = np.repeat(np.arange(10), 5)
    sampler = IdentitySampler(labels, 5, 4, seed=0)
    for step in range(20):
        indices = sampler(step)
        assert len(set(indices)) == 20
        assert sorted(np.bincount(labels[indices], minlength=10))[-5:] == [4] * 5
    assert set(labels[np.concatenate([sampler(0), sampler(1)])]) == set(range(10))  # a round meets everybody


def test_people_with_few_crops_repeat_them() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    indices = IdentitySampler(labels, 2, 4, seed=0)(0)
    assert sorted(np.bincount(indices, minlength=5)[:2]) == [2, 2]


def test_too_few_identities_are_refused() -> None:
    with pytest.raises(DataError, match="needs 8 identities"):
        IdentitySampler(np.array([0, 0, 1, 1]), 8, 4, seed=0)


def test_identities_with_one_crop_are_not_trained_on(market: Path) -> None:
    data = read_data(market)
    kept, labels = trainable([*data.train, data.query[0]])
    assert len(kept) == len(data.train)
    assert set(labels) == set(range(6))


def test_a_smaller_subset_is_part_of_a_larger_one(market: Path) -> None:
    data = read_data(market)
    assert limit_training(data, None, None) is data
    small, large = limit_training(data, 3, 2), limit_training(data, 5, 3)
    assert sorted(Counter(crop.person for crop in small.train).values()) == [2, 2, 2]
    assert len({crop.person for crop in large.train}) == 5
    assert set(small.train) < set(large.train) < set(data.train)
    assert (small.query, small.gallery) == (data.query, data.gallery)
    assert small == limit_training(data, 3, 2)
    assert small.name.endswith("(3 identities, 2 crops each)")


@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
def test_the_store_decodes_as_the_bundle_does(market: Path, cache_gib: float) -> None:
    data, spec = read_data(market), InputSpec(height=48, width=24)
    store = CropStore(data.train, spec, cache_gib)
    for _ in range(2):
        images = store.get([3, 0, 3])
        for image, index in zip(images, (3, 0, 3), strict=True):
            assert (image == load_crop(data.train[index].path.read_bytes(), 48, 24)).all()


def test_the_cache_keeps_as_many_crops_as_fit(market: Path, tmp_path: Path) -> None:
    """What is kept needs its file no more; the rest is read again."""
    shutil.copytree(market, tmp_path / "set")
    spec = InputSpec(height=48, width=24)
    store = CropStore(read_data(tmp_path / "set").train, spec, cache_gib=2.5 * 48 * 24 * 3 / 2**30)
    before = store.get([2, 1, 0])
    shutil.rmtree(tmp_path / "set")
    assert (store.get([0, 1, 0]) == before[[2, 1, 2]]).all()
    with pytest.raises(DataError, match="cannot be used"):
        store.get([2])


def test_threads_may_ask_for_the_same_crops(market: Path) -> None:
    crops = read_data(market).train
    store = CropStore(crops, InputSpec(height=48, width=24), threads=3)
    expected = CropStore(crops, store.spec, cache_gib=0, threads=1).get(range(len(crops)))
    wanted = [np.random.default_rng(seed).integers(0, len(crops), 40) for seed in range(30)]
    with closing(prefetch(store.get, wanted)) as batches:
        for indices, images in zip(wanted, batches, strict=True):
            assert (images == expected[indices]).all()


def test_a_corrupt_crop_is_named(tmp_path: Path) -> None:
    for camera in (1, 2):
        write_crop(tmp_path / "ann" / f"{camera}_0.jpg", camera)
    (tmp_path / "ann" / "2_0.jpg").write_bytes((tmp_path / "ann" / "2_0.jpg").read_bytes()[:200])
    data = read_data(tmp_path)
    crops = [*data.train, *data.query, *data.gallery]
    with pytest.raises(DataError, match=r"2_0\.jpg cannot be used"):
        CropStore(crops, InputSpec(height=32, width=16)).get(range(len(crops)))


OFF = AugmentConfig(flip=0, shift=0, zoom=0, erase=0)


def test_augmentation_at_zero_strength_changes_nothing() -> None:
    image = torch.randn(4, 3, 32, 16)
    torch.testing.assert_close(augment(image, OFF, torch.Generator()), image, atol=1e-5, rtol=0)


def test_a_certain_flip_is_a_mirror() -> None:
    image = torch.randn(4, 3, 32, 16)
    flipped = augment(image, OFF.model_copy(update={"flip": 1.0}), torch.Generator())
    torch.testing.assert_close(flipped, image.flip(3), atol=1e-4, rtol=0)


def test_erasing_removes_a_rectangle_of_the_stated_size() -> None:
    image = torch.ones(200, 3, 64, 32)
    config = OFF.model_copy(update={"erase": 1.0, "erase_area": (0.1, 0.2)})
    holes = augment(image, config, torch.Generator().manual_seed(0))[:, 0] < 0.5
    share = holes.float().mean((1, 2))
    assert share.min() > 0.05
    assert share.max() < 0.25
    rows, columns = holes.any(2).sum(1), holes.any(1).sum(1)
    assert (rows * columns == holes.sum((1, 2))).all()


def test_augmentation_depends_on_the_generator_only() -> None:
    image = torch.randn(8, 3, 32, 16)
    first, again, other = (augment(image, AugmentConfig(), torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_batches_come_in_order_ahead_of_need_and_stop_with_their_reader() -> None:
    started: list[int] = []

    def load(item: int) -> int:
        started.append(item)
        if item == 40:
            raise DataError("item 40")
        return item * item

    assert list(prefetch(load, range(20))) == [item * item for item in range(20)]
    assert list(prefetch(load, [])) == []
    started.clear()
    reader = prefetch(load, range(100))
    assert [next(reader) for _ in range(3)] == [0, 1, 4]
    reader.close()
    assert 3 <= len(started) <= 3 + AHEAD
    with pytest.raises(DataError, match="item 40"):
        list(prefetch(load, range(38, 50)))
