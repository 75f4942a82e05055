"""Data sets on disk: the Market-1501 layout, and one's own crops as folders or as a CSV table."""

import csv
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from training.data.crops import JUNK, Crop, ReidData
from training.errors import DataError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
MARKET_NAME = re.compile(r"^(-?\d+)_c(\d+)")
TEST_FRACTION = 0.25


def read_data(path: Path) -> ReidData:
    """Read a data set; its layout is found from what is there.

    - `bounding_box_train/`, `query/`, `bounding_box_test/` with `PID_cC...` names: Market-1501;
    - a `.csv` file with columns path, person, camera and, if wanted, split (train, query, gallery);
    - a folder of `person/camera_*.jpg`.

    The last two, without a split, hold a quarter of the identities out (chosen by a hash of the name, so that new
    people never move old ones), and take the first crop of each of them in each camera as query.

    Raises DataError saying what was looked for.
    """
    if path.is_file() and path.suffix.lower() == ".csv":
        return _read_csv(path)
    if not path.is_dir():
        raise DataError(f"there is no data set at {path}")
    if (path / "bounding_box_train").is_dir():
        return _read_market(path)
    return _read_folders(path)


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is missing; a Market-1501 data set has bounding_box_train, query, bounding_box_test")
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)


def _read_market(path: Path) -> ReidData:
    def crops(folder: str) -> tuple[Crop, ...]:
        found = []
        for file in _images(path / folder):
            match = MARKET_NAME.match(file.name)
            if match is None:
                raise DataError(f"{file} is not named like a Market-1501 crop, PID_cCsS_FRAME_BOX.jpg")
            found.append(Crop(file, int(match[1]), int(match[2])))
        return tuple(found)

    train = tuple(crop for crop in crops("bounding_box_train") if crop.person != JUNK)
    return ReidData(path.name, train, crops("query"), crops("bounding_box_test"))


def _read_folders(path: Path) -> ReidData:
    named = []
    for folder in sorted(child for child in path.iterdir() if child.is_dir()):
        for file in sorted(folder.iterdir()):
            if file.suffix.lower() in SUFFIXES:
                camera, separator, _ = file.stem.partition("_")
                if not separator:
                    raise DataError(f"{file} is not named camera_*.jpg; the part before the first _ is the camera")
                named.append((file, folder.name, camera, ""))
    if not named:
        raise DataError(
            f"{path} holds neither bounding_box_train/ (Market-1501) nor folders person/camera_*.jpg; "
            "for another layout write a CSV with columns path, person, camera"
        )
    return _split(path.name, named)


def _read_csv(path: Path) -> ReidData:
    with path.open(newline="", encoding="utf-8") as stream:
        table = csv.DictReader(stream)
        missing = {"path", "person", "camera"} - set(table.fieldnames or ())
        if missing:
            raise DataError(f"{path} lacks the columns {', '.join(sorted(missing))}")
        named = []
        for line, row in enumerate(table, start=2):
            split = (row.get("split") or "").strip()
            if split not in {"", "train", "query", "gallery"}:
                raise DataError(f"{path}, line {line}: split is {split!r}; it may be train, query, gallery or empty")
            named.append((path.parent / row["path"], row["person"], row["camera"], split))
    if not named:
        raise DataError(f"{path} has no rows")
    if any(split for *_, split in named) and not all(split for *_, split in named):
        raise DataError(f"{path}: some rows have a split and some have none; fill all or leave all empty")
    return _split(path.stem, named)


def _split(name: str, named: Iterable[tuple[Path, str, str, str]]) -> ReidData:
    rows = list(named)
    person_ids = {person: index for index, person in enumerate(sorted({row[1] for row in rows}), start=1)}
    camera_ids = {camera: index for index, camera in enumerate(sorted({row[2] for row in rows}), start=1)}
    sides: dict[str, list[Crop]] = {"train": [], "query": [], "gallery": []}
    seen: set[tuple[str, str]] = set()
    for file, person, camera, split in rows:
        if not split:
            split = "train"
            if _held_out(person):
                split = "gallery" if (person, camera) in seen else "query"
                seen.add((person, camera))
        sides[split].append(Crop(file, person_ids[person], camera_ids[camera]))
    shared = {crop.person for crop in sides["train"]} & {crop.person for crop in sides["query"]}
    if shared:
        raise DataError(f"{name}: {len(shared)} identities are both in train and in query; figures would be worthless")
    return ReidData(name, *(tuple(sides[side]) for side in ("train", "query", "gallery")))


def _held_out(person: str) -> bool:
    return hashlib.sha256(person.encode()).digest()[0] < 256 * TEST_FRACTION
