"""Custom data sets: one folder per person, or a CSV table."""

import csv
import hashlib
from collections.abc import Iterable
from pathlib import Path

from training.data.crops import Crop, ReidData
from training.data.readers.scan import Scan, images, lines
from training.errors import DataError

TEST_FRACTION = 0.25
SPLITS = ("train", "query", "gallery")

Row = tuple[Path, str, str, str]  # file, person, camera, split or ""


def scan_folders(path: Path) -> Scan:
    """Folders `person/camera_*.jpg`: the part of the name before the first _ is the camera."""
    rows: list[Row] = []
    unreadable = []
    for folder in sorted(child for child in path.iterdir() if child.is_dir()):
        for file in images(folder):
            camera, separator, _ = file.stem.partition("_")
            if separator and camera:
                rows.append((file, folder.name, camera, ""))
            else:
                unreadable.append(f"{file} is not named camera_*.jpg; the part before the first _ is the camera")
    return Scan(_split(path.name, rows), unreadable=tuple(unreadable))


def scan_csv(path: Path) -> Scan:
    """A table with the columns path (relative to the table), person, camera and, if wanted, split."""
    table = csv.DictReader(lines(path))
    missing = {"path", "person", "camera"} - set(table.fieldnames or ())
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(sorted(missing))}")
    rows: list[Row] = []
    unreadable = []
    for row in table:
        file, person, camera, split = ((row.get(key) or "").strip() for key in ("path", "person", "camera", "split"))
        where = f"{path}, line {table.line_num}"
        if not (file and person and camera):
            unreadable.append(f"{where}: path, person and camera must all be filled")
        elif split not in {"", *SPLITS}:
            unreadable.append(f"{where}: split is {split!r}; it may be train, query, gallery or empty")
        else:
            rows.append((path.parent / file, person, camera, split))
    if not rows and not unreadable:
        raise DataError(f"{path} has no rows")
    if any(split for *_, split in rows) and not all(split for *_, split in rows):
        raise DataError(f"{path}: some rows have a split and some have none; fill all or leave all empty")
    return Scan(_split(path.stem, rows), unreadable=tuple(unreadable))


def _split(name: str, rows: Iterable[Row]) -> ReidData:
    """Without a split, a quarter of the identities is held out, and its first crop in each camera is a query."""
    rows = list(rows)
    person_ids = {person: index for index, person in enumerate(sorted({row[1] for row in rows}), start=1)}
    camera_ids = {camera: index for index, camera in enumerate(sorted({row[2] for row in rows}), start=1)}
    sides: dict[str, list[Crop]] = {split: [] for split in SPLITS}
    seen: set[tuple[str, str]] = set()
    for file, person, camera, split in rows:
        if not split:
            split = "train"
            if _held_out(person):
                split = "gallery" if (person, camera) in seen else "query"
                seen.add((person, camera))
        sides[split].append(Crop(file, person_ids[person], camera_ids[camera]))
    return ReidData(name, *(tuple(sides[split]) for split in SPLITS))


def _held_out(person: str) -> bool:
    """Decided by a hash of the name, so that adding persons does not change the split."""
    return hashlib.sha256(person.encode()).digest()[0] < 256 * TEST_FRACTION
