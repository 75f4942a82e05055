"""MSMT17: four lists of `path label`, images in `train/` and `test/`."""

from pathlib import Path

from training.data.crops import Crop, ReidData
from training.data.readers.scan import Scan, Source, lines
from training.errors import DataError

MSMT17 = Source("MSMT17", 32_621, 11_659, 82_161)
TRAIN_LISTS = ("list_train.txt", "list_val.txt")  # training uses both by convention; 32,621 counts both
TEST_LISTS = ("list_query.txt", "list_gallery.txt")
# version 2 is version 1 with the faces blurred
FOLDERS = {"train": ("train", "mask_train_v2"), "test": ("test", "mask_test_v2")}


def is_msmt17(path: Path) -> bool:
    """Whether a folder has this layout, possibly incomplete."""
    return any((path / name).is_file() for name in (*TRAIN_LISTS, *TEST_LISTS))


def scan_msmt17(path: Path) -> Scan:
    """Lines such as `0000/0000_000_01_0303morning_0015_0.jpg 0`: the third field of the name is the camera.

    Labels start at 0 both in train and in test; those of test are shifted behind those of train.
    """
    unreadable: list[str] = []

    def crops(name: str, folder: Path, first: int) -> tuple[Crop, ...]:
        found = []
        for number, line in enumerate(lines(path / name), start=1):
            if not line.strip():
                continue
            file, _, label = line.strip().rpartition(" ")
            fields = Path(file).name.split("_")
            if not label.isdecimal() or len(fields) < 4 or not fields[2].isdecimal():
                unreadable.append(f"{path / name}, line {number}: {line!r} is not `ID/ID_N_CAMERA_TIME_....jpg LABEL`")
            else:
                found.append(Crop(folder / file, first + int(label), int(fields[2])))
        return tuple(found)

    train_folder, test_folder = _folder(path, "train"), _folder(path, "test")
    train = tuple(crop for name in TRAIN_LISTS for crop in crops(name, train_folder, 1))
    first = max((crop.person for crop in train), default=0) + 1
    data = ReidData(path.name, train, *(crops(name, test_folder, first) for name in TEST_LISTS))
    return Scan(data, MSMT17, tuple(unreadable))


def _folder(path: Path, side: str) -> Path:
    for name in FOLDERS[side]:
        if (path / name).is_dir():
            return path / name
    raise DataError(f"{path} has the lists of MSMT17 but no folder {' or '.join(FOLDERS[side])}")
