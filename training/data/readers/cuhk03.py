"""CUHK03 in the new protocol (767 training and 700 test identities), from its split file and extracted images.

The same protocol in Market-1501 folders (`cuhk03-np/{detected,labeled}`) is read by `market`.
"""

import re
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from training.data.crops import Crop, ReidData
from training.data.readers.scan import Scan, Source
from training.errors import DataError

DETECTED = Source("CUHK03 detected, new protocol", 7_365, 1_400, 5_332)
LABELLED = Source("CUHK03 labelled, new protocol", 7_368, 1_400, 5_328)
SOURCES = {"detected": DETECTED, "labeled": LABELLED, "labelled": LABELLED}

SPLIT_FILE = re.compile(r"^cuhk03_new_protocol_config_(detected|labeled)\.mat$")
INDICES = ("train_idx", "query_idx", "gallery_idx")
# each of the five camera pairs numbers its persons and its two views from 1
NAME = re.compile(r"^(\d+)_(\d+)_(\d+)_\d+\.")


def split_files(path: Path) -> list[Path]:
    """The split files in a folder."""
    return sorted(file for file in path.iterdir() if SPLIT_FILE.match(file.name))


def scan_cuhk03(file: Path) -> Scan:
    """A split file with `images_detected/` or `images_labeled/` beside it, named PAIR_PERSON_VIEW_N.png."""
    match = SPLIT_FILE.match(file.name)
    if match is None:
        raise DataError(f"{file} is not a data set; of .mat files, cuhk03_new_protocol_config_*.mat is read")
    folder = file.parent / f"images_{match[1]}"
    if not folder.is_dir():
        raise DataError(f"{folder} is missing; extract the images of cuhk-03.mat into it as PAIR_PERSON_VIEW_N.png")
    try:
        table = loadmat(file, variable_names=["filelist", *INDICES])
        names = [str(cell.item()) for cell in table["filelist"].ravel()]
        # Matlab indices start at 1
        sides = [[names[index - 1] for index in table[key].ravel().astype(np.int64)] for key in INDICES]
    except Exception as error:  # broken bytes make this parser raise anything
        raise DataError(f"{file} is not the new protocol's split file ({error}); fetch it again") from error
    unreadable: list[str] = []

    def crops(side: list[str]) -> tuple[Crop, ...]:
        found = []
        for name in side:
            match = NAME.match(name)
            if match is None:
                unreadable.append(f"{name} in {file.name} is not named PAIR_PERSON_VIEW_N.png")
            else:
                pair, person, view = (int(part) for part in match.groups())
                found.append(Crop(folder / name, 10_000 * pair + person, 2 * (pair - 1) + view))
        return tuple(found)

    data = ReidData(f"cuhk03-{match[1]}", *(crops(side) for side in sides))
    return Scan(data, SOURCES[match[1]], tuple(unreadable))
