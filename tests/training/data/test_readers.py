"""The layouts of the public data sets, with made-up files in them, and several sets at once."""

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.io import savemat

from training.config import load_config
from training.data import persons, read_data, scan_data, trainable
from training.data.crops import cameras
from training.errors import DataError
from training.trainer import Trainer


def touch(root: Path, *names: str) -> None:
    """Readers look at names alone, so empty files do."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_duke_is_known_by_its_names_and_carries_its_notice(tmp_path: Path) -> None:
    touch(tmp_path, "bounding_box_train/0001_c2_f0046182.jpg", "bounding_box_train/0001_c5_f0051341.jpg")
    touch(tmp_path, "query/0005_c2_f0046985.jpg", "bounding_box_test/0005_c8_f0063161.jpg")
    scan = scan_data(tmp_path)
    assert [(crop.person, crop.camera) for crop in scan.data.train] == [(1, 2), (1, 5)]
    assert scan.source
    assert scan.source.title == "DukeMTMC-reID"
    assert "withdrawn by its authors in 2019" in read_data(tmp_path).notice


@pytest.mark.parametrize(("folder", "train"), [("detected", 7365), ("labeled", 7368)])
def test_cuhk03_in_market_folders(tmp_path: Path, folder: str, train: int) -> None:
    root = tmp_path / "cuhk03-np" / folder
    touch(root, "bounding_box_train/0001_c1_1.png", "query/0003_c2_7.png", "bounding_box_test/0003_c1_12.png")
    scan = scan_data(root)
    assert scan.data.name == f"cuhk03-{folder}"
    assert [(crop.person, crop.camera) for crop in (*scan.data.query, *scan.data.gallery)] == [(3, 2), (3, 1)]
    assert scan.source
    assert scan.source.train == train


def test_cuhk03_asks_which_of_its_two_sets_is_meant(tmp_path: Path) -> None:
    for folder in ("detected", "labeled"):
        touch(tmp_path / folder, "bounding_box_train/0001_c1_1.png", "query/2_c2_7.png", "bounding_box_test/2_c1_2.png")
    with pytest.raises(DataError, match=r"name one of .*detected, .*labeled"):
        read_data(tmp_path)


def write_split(root: Path, which: str = "detected") -> Path:
    names = ["1_001_1_01.png", "1_001_2_06.png", "1_002_1_01.png", "3_001_1_01.png", "3_001_2_06.png"]
    file = root / f"cuhk03_new_protocol_config_{which}.mat"
    split = {"train_idx": [[1], [2]], "query_idx": [[4]], "gallery_idx": [[5], [3]]}
    savemat(file, {"filelist": np.array(names, dtype=object)[:, None], "labels": [[1], [1], [2], [3], [3]], **split})
    touch(root, *(f"images_{which}/{name}" for name in names))
    return file


def test_cuhk03_from_its_split_file(tmp_path: Path) -> None:
    data = read_data(write_split(tmp_path))
    assert [crop.path.name for crop in data.train] == ["1_001_1_01.png", "1_001_2_06.png"]
    assert [crop.path.name for crop in data.gallery] == ["3_001_2_06.png", "1_002_1_01.png"]
    assert all(crop.path.is_file() for crop in (*data.train, *data.query, *data.gallery))
    # person 001 of the third pair of cameras is not person 001 of the first
    assert data.query[0].person == data.gallery[0].person != data.train[0].person
    assert list(cameras((*data.train, *data.query, *data.gallery))) == [1, 2, 5, 6, 1]
    assert read_data(tmp_path) == data


def test_two_split_files_are_not_guessed_between(tmp_path: Path) -> None:
    write_split(tmp_path, "detected")
    write_split(tmp_path, "labeled")
    with pytest.raises(DataError, match="name one split file"):
        read_data(tmp_path)
    assert read_data(tmp_path / "cuhk03_new_protocol_config_labeled.mat").name == "cuhk03-labeled"


def test_a_broken_split_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    file = write_split(tmp_path)
    file.write_bytes(b"not a Matlab file")
    with pytest.raises(DataError, match="not the new protocol's split file"):
        read_data(tmp_path)


def write_msmt17(root: Path) -> Path:
    lists = {
        "list_train.txt": "0000/0000_000_01_0303morning_0015_0.jpg 0\n0001/0001_000_15_0113noon_0021_1.jpg 1\n",
        "list_val.txt": "0000/0000_001_02_0303morning_0016_0.jpg 0\n",
        "list_query.txt": "0000/0000_000_03_0303noon_0015_0.jpg 0\n",
        "list_gallery.txt": "0000/0000_001_04_0303noon_0015_0.jpg 0\n0001/0001_000_05_0303noon_0015_0.jpg 1\n",
    }
    for name, text in lists.items():
        (root / name).write_text(text)
        side = "train" if name in {"list_train.txt", "list_val.txt"} else "test"
        touch(root, *(f"{side}/{line.split()[0]}" for line in text.splitlines()))
    return root


def test_msmt17_trains_on_val_and_keeps_test_people_apart(tmp_path: Path) -> None:
    data = read_data(write_msmt17(tmp_path))
    assert all(crop.path.is_file() for crop in (*data.train, *data.query, *data.gallery))
    assert list(cameras(data.train)) == [1, 15, 2]
    assert list(cameras((*data.query, *data.gallery))) == [3, 4, 5]
    # its labels start at 0, which is nobody under the official rules, and start again in test
    train, query, gallery = (persons(side) for side in (data.train, data.query, data.gallery))
    assert train[0] == train[2] != train[1]
    assert query[0] == gallery[0] != gallery[1]
    assert min(*train, *query, *gallery) > 0
    assert not {*train} & {*query, *gallery}


def test_entries_that_cannot_be_understood_are_all_found(tmp_path: Path) -> None:
    write_msmt17(tmp_path)
    with (tmp_path / "list_gallery.txt").open("a") as file:
        file.write("0002/0002.jpg 2\n0002/0002_000_05_0303noon_0015_0.jpg two\n")
    assert len(scan_data(tmp_path).unreadable) == 2
    with pytest.raises(DataError, match=r"2 entries .*list_gallery\.txt, line 3"):
        read_data(tmp_path)


@pytest.mark.parametrize("missing", ["list_val.txt", "list_gallery.txt"])
def test_a_missing_list_is_named(tmp_path: Path, missing: str) -> None:
    (write_msmt17(tmp_path) / missing).unlink()
    with pytest.raises(DataError, match=f"{missing} is missing"):
        read_data(tmp_path)


def test_half_a_market_layout_is_not_taken_for_people_named_query(tmp_path: Path) -> None:
    touch(tmp_path, "query/0001_c1s1_000001_00.jpg", "bounding_box_test/0001_c2s1_000001_00.jpg")
    with pytest.raises(DataError, match="lacks bounding_box_train"):
        read_data(tmp_path)


def test_the_folder_above_a_data_set_points_to_it(tmp_path: Path) -> None:
    touch(
        tmp_path / "Market", "bounding_box_train/1_c1s1_1_00.jpg", "query/2_c1s1_1_00.jpg", "bounding_box_test/._x.jpg"
    )
    with pytest.raises(DataError, match=r"name one of .*Market"):
        read_data(tmp_path)


def test_files_of_macos_archives_are_not_crops(tmp_path: Path) -> None:
    touch(tmp_path, "anna/gate_1.jpg", "anna/._gate_1.jpg")
    scan = scan_data(tmp_path)
    assert len((*scan.data.train, *scan.data.query)) == 1
    assert not scan.unreadable


def test_somebody_in_train_and_test_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "bounding_box_train/1_c1s1_1_00.jpg", "query/2_c1s1_1_00.jpg", "bounding_box_test/1_c2s1_1_00.jpg")
    with pytest.raises(DataError, match="1 identities are both in train and in query or gallery"):
        read_data(tmp_path)


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    (tmp_path / "crops.csv").write_bytes("\ufeffpath,person,camera\r\na.png,Ana,1\r\n".encode())
    data = read_data(tmp_path / "crops.csv")
    assert [crop.path for crop in (*data.train, *data.query)] == [tmp_path / "a.png"]


def test_several_sets_keep_people_and_cameras_apart(market: Path, tmp_path: Path) -> None:
    other = write_msmt17(tmp_path)
    alone, foreign, both = read_data(market), read_data(other), read_data([market, other])
    assert both.name == f"{market.name}+{other.name}, tested on {market.name}"
    assert (both.query, both.gallery) == (alone.query, alone.gallery)
    assert both.train[: len(alone.train)] == alone.train
    added = both.train[len(alone.train) :]
    assert [crop.path for crop in added] == [crop.path for crop in foreign.train]
    assert not {*persons(added)} & {*persons((*alone.train, *alone.gallery))}
    assert not {*cameras(added)} & {*cameras((*alone.train, *alone.gallery))}
    assert len({*persons(added)}) == len({*persons(foreign.train)})
    assert len({*trainable(both.train)[1]}) == 6 + 1  # of the two foreign people one has a single crop


def test_a_cross_domain_test_uses_the_query_and_gallery_of_the_other_set(market: Path, tmp_path: Path) -> None:
    other = write_msmt17(tmp_path)
    data = read_data(market, test=other)
    assert [crop.path for crop in data.train] == [crop.path for crop in read_data(market).train]
    assert (data.query, data.gallery) == (read_data(other).query, read_data(other).gallery)
    assert not {*persons(data.train)} & {*persons((*data.query, *data.gallery))}


def test_a_set_to_test_on_must_have_something_to_test(market: Path, tmp_path: Path) -> None:
    write_msmt17(tmp_path)
    (tmp_path / "list_query.txt").write_text("")
    with pytest.raises(DataError, match="lacks query or gallery"):
        read_data(market, test=tmp_path)


def test_a_set_named_twice_is_refused(market: Path) -> None:
    with pytest.raises(DataError, match="named twice"):
        read_data([market, market / "query" / ".."])


def test_a_run_takes_several_sets_and_the_set_to_test_on(market: Path, tmp_path: Path) -> None:
    other = write_msmt17(tmp_path)
    small = ["preset=short", "model.depth=18", "model.width=0.125", "sampler.identities=2"]
    paths = [f"data.path=[{market}, {other}]", f"data.test={other}"]
    trainer = Trainer(load_config(None, [*small, *paths]), tmp_path / "run")
    assert {*trainer.labels} == {*range(7)}
    assert trainer.data.query == read_data(other).query


def test_a_run_on_duke_shows_the_notice(market: Path, tmp_path: Path) -> None:
    touch(tmp_path, "bounding_box_train/0001_c2_f0046182.jpg", "query/0005_c2_f0046985.jpg")
    touch(tmp_path, "bounding_box_test/0005_c8_f0063161.jpg")
    told = Console(file=StringIO(), width=200)
    small = [
        "preset=short",
        "model.depth=18",
        "model.width=0.125",
        "sampler.identities=2",
        f"data.path=[{market}, {tmp_path}]",
    ]
    Trainer(load_config(None, small), tmp_path / "run", told)
    assert isinstance(told.file, StringIO)
    assert "withdrawn by its authors in 2019" in told.file.getvalue()


def test_an_empty_list_of_sets_is_refused() -> None:
    with pytest.raises(DataError, match="no data set is given"):
        read_data([])
