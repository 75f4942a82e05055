"""The crops in a folder, with metadata from file names (Market-1501, or `person/camera_*.jpg`) and a CSV file."""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pan_reid.errors import PanReidError
from pan_reid.schemas import EntryInfo

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_MARKET = re.compile(r"^(?P<person>-1|\d+)_c(?P<camera>\d+)(s\d+)?_")
_JUNK = "-1"


_MEMBERS = ("person_id", "camera_id", "captured_at")


class FolderError(PanReidError):
    """The folder has no crops, or its metadata is invalid."""

    code = "folder"


@dataclass(frozen=True, slots=True)
class CropFile:
    """The path of a crop, and its metadata."""

    path: Path
    info: EntryInfo


def find_crops(folder: Path) -> list[CropFile]:
    """All crops in a folder and its subfolders, sorted by path, without Market-1501's junk (person -1).

    `0002_c1s1_000451_03.jpg` is person 0002 at camera c1. Person 0000 means distractors, which get no person.
    `anna/lobby_17.jpg` is person anna at camera lobby. A file with another name, directly in the folder, has neither.
    The attribute `file` is the path in the folder. Raises FolderError.
    """
    if not folder.is_dir():
        raise FolderError(f"{folder} is not a folder")
    crops = list(_crops(folder))
    if not crops:
        raise FolderError(f"{folder} has no images ({', '.join(sorted(_SUFFIXES))})")
    return crops


def _crops(folder: Path) -> Iterator[CropFile]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in _SUFFIXES or not path.is_file():
            continue
        relative = path.relative_to(folder)
        person: str | None = None
        camera: str | None = None
        if market := _MARKET.match(path.name):
            if market["person"] == _JUNK:
                continue
            person = market["person"] if int(market["person"]) else None
            camera = f"c{market['camera']}"
        elif len(relative.parts) > 1:
            person = relative.parts[-2]
            camera = path.stem.split("_")[0] if "_" in path.stem else None
        yield CropFile(
            path, EntryInfo(person_id=person, camera_id=camera, attributes={"file": relative.as_posix()[-512:]})
        )


def describe(
    crops: list[CropFile],
    folder: Path,
    metadata: Path | None = None,
    defaults: Mapping[str, str] | None = None,
    attributes: Mapping[str, str] | None = None,
) -> list[CropFile]:
    """Add metadata to that from the file names.

    `defaults` (person_id, camera_id, captured_at) apply if the name has no value; `attributes` apply to all crops.
    `metadata` is a CSV file with a column `file`, the path in the folder. Its other columns take precedence, except for
    empty cells. Raises FolderError, also for a row whose file is not in the folder.
    """
    rows = {} if metadata is None else _rows(metadata)
    described = []
    for crop in crops:
        name = crop.path.relative_to(folder).as_posix()
        number, row = rows.pop(name, (0, {}))
        named = {member: getattr(crop.info, member) for member in _MEMBERS}
        known: dict[str, Any] = {
            **(defaults or {}),
            **{key: value for key, value in named.items() if value is not None},
        }
        known |= {key: value for key, value in row.items() if key in _MEMBERS}
        others = {key: value for key, value in row.items() if key not in _MEMBERS}
        known["attributes"] = {**crop.info.attributes, **(attributes or {}), **others}
        try:
            described.append(CropFile(crop.path, EntryInfo.model_validate(known)))
        except ValidationError as error:
            where = f"{metadata}, line {number}" if row else name
            problem = error.errors()[0]
            raise FolderError(f"{where}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    if rows:
        name, (number, _) = next(iter(rows.items()))
        raise FolderError(
            f"{metadata}, line {number}: there is no crop {name} in {folder}; {len(rows):,} such rows. Paths are "
            "relative to the folder, and junk of Market-1501 (person -1) is skipped"
        )
    return described


def _rows(path: Path) -> dict[str, tuple[int, dict[str, str]]]:
    """By file: the line number, and the cells that are not empty."""
    rows: dict[str, tuple[int, dict[str, str]]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if "file" not in (reader.fieldnames or ()):
                raise FolderError(f"{path} has no column `file`; its first line must name the columns")
            for row in reader:
                if None in row:
                    raise FolderError(f"{path}, line {reader.line_num}: more cells than columns")
                name = Path(row.pop("file") or "").as_posix()
                if name in rows:
                    raise FolderError(f"{path}, line {reader.line_num}: a second row for {name}")
                rows[name] = (reader.line_num, {key: value for key, value in row.items() if value})
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FolderError(f"{path} cannot be read ({error}); it must be a CSV file in UTF-8") from None
    return rows
