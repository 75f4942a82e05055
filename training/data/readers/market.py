"""Market-1501 and the sets that took its layout: DukeMTMC-reID and CUHK03 in the new protocol."""

import re
from pathlib import Path

from training.data.crops import Crop, ReidData
from training.data.readers.cuhk03 import SOURCES as CUHK03
from training.data.readers.scan import Scan, Source, images
from training.errors import DataError

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
NAME = re.compile(r"^(-?\d+)_c(\d+)")

MARKET = Source("Market-1501", 12_936, 3_368, 19_732)
DUKE = Source(
    "DukeMTMC-reID",
    16_522,
    2_228,
    17_661,
    "DukeMTMC-reID was withdrawn by its authors in 2019: the people pictured had not consented. "
    "Existing copies can be read; PAN Re-ID never downloads it.",
)
# the part after the camera shows which data set the file names are from
MARKET_NAME = re.compile(r"^-?\d+_c\d+s\d+_")
DUKE_NAME = re.compile(r"^\d+_c\d+_f\d+")
CUHK03_NAME = re.compile(r"^\d+_c\d+_\d+\.")


def is_market(path: Path) -> bool:
    """Whether a folder has this layout, possibly incomplete."""
    return any((path / folder).is_dir() for folder in FOLDERS)


def scan_market(path: Path) -> Scan:
    """`bounding_box_train/`, `query/`, `bounding_box_test/` with `PID_cC...` names; PID -1 is junk, 0 a distractor."""
    missing = [folder for folder in FOLDERS if not (path / folder).is_dir()]
    if missing:
        raise DataError(f"{path} lacks {' and '.join(missing)}; a Market-1501 data set has {', '.join(FOLDERS)}")
    unreadable: list[str] = []

    def crops(folder: str) -> tuple[Crop, ...]:
        found = []
        for file in images(path / folder):
            match = NAME.match(file.name)
            if match is None:
                unreadable.append(f"{file} is not named like a Market-1501 crop, PID_cCsS_FRAME_BOX.jpg")
            else:
                found.append(Crop(file, int(match[1]), int(match[2])))
        return tuple(found)

    train = crops("bounding_box_train")
    query = crops("query")
    source = _source(path, (*train, *query))
    name = f"cuhk03-{path.name}" if source in CUHK03.values() else path.name
    data = ReidData(name, train, query, crops("bounding_box_test"), notice=source.notice if source else "")
    return Scan(data, source, tuple(unreadable))


def _source(path: Path, crops: tuple[Crop, ...]) -> Source | None:
    first = crops[0].path.name if crops else ""
    if MARKET_NAME.match(first):
        return MARKET
    if DUKE_NAME.match(first):
        return DUKE
    return CUHK03.get(path.name) if CUHK03_NAME.match(first) else None
