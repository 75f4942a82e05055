"""Which crops a folder holds, and what their names say: Market-1501's names, or `person/camera_*.jpg`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bundle import PanError
from pan_reid.schemas import EntryInfo

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_MARKET = re.compile(r"^(?P<person>-1|\d+)_c(?P<camera>\d+)(s\d+)?_")
_JUNK = "-1"


class NoCrops(PanError):
    """The folder holds no crops."""

    code = "no-crops"


@dataclass(frozen=True, slots=True)
class CropFile:
    """A picture and what its name says of it."""

    path: Path
    info: EntryInfo


def find_crops(folder: Path) -> list[CropFile]:
    """Every crop under a folder, by path; Market-1501's junk (person -1) is left out.

    `0002_c1s1_000451_03.jpg` is person 0002 at camera c1; person 0000 are distractors, enrolled without a person.
    `anna/lobby_17.jpg` is person anna at camera lobby. A picture right in the folder with another name has neither.
    Each entry keeps its path as the attribute `file`. Raises NoCrops.
    """
    if not folder.is_dir():
        raise NoCrops(f"{folder} is not a folder")
    crops = list(_crops(folder))
    if not crops:
        raise NoCrops(f"{folder} holds no pictures ({', '.join(sorted(_SUFFIXES))})")
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
