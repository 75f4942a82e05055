"""`pan-train data check`: a valid data set with one fault, and the finding that reports it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.training.conftest import write_crop
from training.data.check import Report, check_data


@pytest.fixture
def crops(market: Path, tmp_path: Path) -> Path:
    """A copy of the sound set: six training and three test identities, two cameras."""
    return shutil.copytree(market, tmp_path / "crops")


def faults(report: Report) -> dict[str, tuple[str, ...]]:
    return {finding.code: finding.cases for finding in report.findings if finding.must_fix}


def remarks(report: Report) -> dict[str, tuple[str, ...]]:
    return {finding.code: finding.cases for finding in report.findings if not finding.must_fix}


def test_a_valid_set_is_described_and_distinguished_from_the_official_one(crops: Path) -> None:
    told = []
    report = check_data(crops, lambda done, total: told.append((done, total)))
    assert report.usable
    assert {name: (side.crops, side.identities, side.cameras) for name, side in report.sides.items()} == {
        "train": (24, 6, 2),
        "query": (6, 3, 2),
        "gallery": (8, 3, 2),
    }
    assert report.sizes
    assert (report.sizes.height, report.sizes.width, report.sizes.aspect) == ((64,) * 3, (32,) * 3, (2,) * 3)
    assert told == [(done, 38) for done in range(1, 39)]
    assert list(remarks(report)) == ["not-official"]
    message = report.findings[0].message
    assert "24 / 6 / 8" in message
    assert "12,936 / 3,368 / 19,732" in message


def test_every_file_that_does_not_decode_is_named(crops: Path) -> None:
    train = sorted((crops / "bounding_box_train").iterdir())
    train[0].write_bytes(train[0].read_bytes()[:300])
    train[5].write_bytes(b"")
    train[9].write_text("<html>404</html>")
    broken = faults(check_data(crops))["broken"]
    assert [case.split(":")[0] for case in broken] == [str(train[index]) for index in (0, 5, 9)]


def test_a_listed_file_that_does_not_exist(tmp_path: Path) -> None:
    for number in range(4):
        write_crop(tmp_path / f"{number}.png", number)
    rows = ["0.png,a,1,train", "1.png,a,2,train", "2.png,b,1,query", "3.png,b,2,gallery", "4.png,b,2,gallery"]
    (tmp_path / "crops.csv").write_text("\n".join(["path,person,camera,split", *rows, "5.png,,2,gallery", ""]))
    report = check_data(tmp_path / "crops.csv")
    assert set(faults(report)) == {"broken", "not-understood"}
    assert "4.png" in faults(report)["broken"][0]
    assert "line 7" in faults(report)["not-understood"][0]


def test_names_that_cannot_be_understood_are_all_listed(crops: Path) -> None:
    for name in ("holiday.jpg", "0001c1.jpg"):
        write_crop(crops / "query" / name, 77)
    cases = faults(check_data(crops))["not-understood"]
    assert len(cases) == 2
    assert "0001c1.jpg" in cases[0]


def test_somebody_in_train_and_test(crops: Path) -> None:
    write_crop(crops / "bounding_box_test" / "0003_c2s1_000009_00.jpg", 501)
    report = check_data(crops)
    assert len(faults(report)["train-in-test"]) == 4  # the four training crops of person 3
    assert not report.usable


@pytest.mark.parametrize(
    ("copy", "code", "must_fix"),
    [
        ("bounding_box_test/0007_c1s1_000044_00.jpg", "same-picture-train-test", True),
        ("bounding_box_train/0002_c1s1_000044_00.jpg", "same-picture-two-people", True),
        ("bounding_box_train/0001_c2s1_000044_00.jpg", "same-picture-two-cameras", True),
        ("bounding_box_train/0001_c1s1_000044_00.jpg", "same-picture", False),
        ("bounding_box_test/-1_c1s1_000044_00.jpg", None, False),  # junk has no influence
    ],
)
def test_the_same_picture_twice(crops: Path, copy: str, code: str | None, must_fix: bool) -> None:
    original = crops / "bounding_box_train" / "0001_c1s1_000000_00.jpg"
    shutil.copyfile(original, crops / copy)
    report = check_data(crops)
    found = {finding.code: finding for finding in report.findings if finding.code.startswith("same-picture")}
    if code is None:
        assert not found
        return
    assert list(found) == [code]
    assert found[code].must_fix is must_fix is not report.usable
    assert {Path(file).name for file in found[code].cases[0].split(" = ")} == {original.name, Path(copy).name}


def test_a_query_that_is_in_gallery_too_is_dropped_by_the_rules(crops: Path) -> None:
    shutil.copyfile(
        crops / "query" / "0007_c1s1_000000_00.jpg", crops / "bounding_box_test" / "0007_c1s1_000044_00.jpg"
    )
    report = check_data(crops)
    assert "same-picture-query-gallery" in remarks(report)
    assert report.usable


def test_the_same_pixels_in_another_file_format_are_found(tmp_path: Path) -> None:
    for number in range(3):
        write_crop(tmp_path / f"{number}.png", number)
    Image.open(tmp_path / "0.png").save(tmp_path / "2.bmp")
    assert (tmp_path / "2.bmp").read_bytes() != (tmp_path / "0.png").read_bytes()
    rows = ["0.png,a,1,train", "1.png,a,2,train", "2.bmp,b,1,query", "2.png,b,2,gallery"]
    (tmp_path / "crops.csv").write_text("\n".join(["path,person,camera,split", *rows, ""]))
    assert set(faults(check_data(tmp_path / "crops.csv"))) == {"same-picture-train-test"}


def test_identities_that_teach_little_are_remarked(crops: Path) -> None:
    train = crops / "bounding_box_train"
    for file in train.glob("0001_c2*"):
        file.unlink()  # person 1 keeps two crops of camera 1
    for file in sorted(train.glob("0002_*"))[1:]:
        file.unlink()  # person 2 keeps one crop
    report = check_data(crops)
    assert report.usable
    assert [Path(case).name[:4] for case in remarks(report)["one-camera"]] == ["0001"]
    assert [Path(case).name[:4] for case in remarks(report)["one-crop"]] == ["0002"]


def test_queries_without_a_positive(crops: Path) -> None:
    for file in (crops / "bounding_box_test").glob("0007_c2*"):
        file.unlink()
    assert [Path(case).name[:7] for case in remarks(check_data(crops))["no-positive"]] == ["0007_c1"]
    for file in (crops / "bounding_box_test").glob("*_c2*"):
        file.unlink()
    for file in (crops / "query").glob("*_c2*"):
        file.unlink()
    assert len(faults(check_data(crops))["no-positive"]) == 3


def test_one_crop_of_everybody_is_nothing_to_train_on(crops: Path) -> None:
    for person in range(1, 7):
        for file in sorted((crops / "bounding_box_train").glob(f"{person:04d}_*"))[1:]:
            file.unlink()
    assert "nothing-to-train" in faults(check_data(crops))


def test_a_set_for_evaluation_alone_is_sound(crops: Path) -> None:
    for file in (crops / "bounding_box_train").iterdir():
        file.unlink()
    report = check_data(crops)
    assert report.usable
    assert "empty-side" in remarks(report)


def test_crops_wider_than_high_are_remarked(crops: Path) -> None:
    write_crop(crops / "bounding_box_train" / "0001_c1s1_000044_00.jpg", 900, height=32, width=64)
    report = check_data(crops)
    assert len(remarks(report)["wide"]) == 1
    assert report.sizes
    assert (report.sizes.width, report.sizes.aspect[0]) == ((32, 32, 64), 0.5)


def test_the_notice_on_duke_is_shown(tmp_path: Path) -> None:
    write_crop(tmp_path / "bounding_box_train" / "0001_c2_f0046182.jpg", 0)
    write_crop(tmp_path / "bounding_box_train" / "0001_c5_f0051341.jpg", 1)
    write_crop(tmp_path / "query" / "0005_c2_f0046985.jpg", 2)
    write_crop(tmp_path / "bounding_box_test" / "0005_c8_f0063161.jpg", 3)
    report = check_data(tmp_path)
    assert report.known_as == "DukeMTMC-reID"
    assert any("2019" in finding.message for finding in report.findings if finding.code == "notice")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training.cli", "data", "check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={"COLUMNS": "200"})


def test_the_command_prints_tables_and_exits_with_1_if_something_must_be_fixed(crops: Path) -> None:
    sound = run(crops)
    assert sound.returncode == 0, sound.stderr
    assert "height 64 to 64, width 32 to 32" in sound.stdout
    assert "24 / 6 / 8" in sound.stdout
    write_crop(crops / "query" / "[bold]odd.jpg", 5)  # not to be taken for the table's own markup
    spoiled = run(crops)
    assert spoiled.returncode == 1
    assert "[bold]odd.jpg" in spoiled.stdout
    told = run(crops, "--json")
    assert told.returncode == 1
    answer = json.loads(told.stdout)
    assert not answer["usable"]
    assert answer["sides"]["train"] == {"crops": 24, "identities": 6, "cameras": 2}
    assert [finding["code"] for finding in answer["findings"] if finding["must_fix"]] == ["not-understood"]


def test_the_command_names_the_layouts_that_it_looked_for(tmp_path: Path) -> None:
    done = run(tmp_path / "nothing")
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no data set at")


def test_junk_crops_in_train_and_query_are_noted(crops: Path) -> None:
    seen = next((crops / "query").iterdir()).read_bytes()
    for folder, name in (
        ("bounding_box_train", "0000_c1s1_000001_00.jpg"),
        ("bounding_box_train", "-1_c2s1_000001_00.jpg"),
        ("query", "0000_c2s1_000002_00.jpg"),  # the gallery has a distractor under camera 1
    ):
        (crops / folder / name).write_bytes(seen)
    found = remarks(check_data(crops))
    assert [Path(case).name[:4] for case in found["nobody-in-train"]] == ["-1_c", "0000"]
    assert [Path(case).name[:4] for case in found["nobody-in-query"]] == ["0000"]
