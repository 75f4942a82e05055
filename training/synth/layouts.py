"""Where a crop lies in the layout of a public data set, under names that its reader knows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"


@dataclass(frozen=True, slots=True)
class CropId:
    """A crop: identities, cameras and crops of one camera are counted from 1; `side` is TRAIN, QUERY or GALLERY."""

    side: str
    identity: int
    camera: int
    index: int


def _market1501(crop: CropId) -> list[str]:
    return [f"{crop.side}/{crop.identity:04d}_c{crop.camera}s1_{crop.index:06d}_00.jpg"]


def _dukemtmc(crop: CropId) -> list[str]:
    return [f"{crop.side}/{crop.identity:04d}_c{crop.camera}_f{crop.index:07d}.jpg"]


def _cuhk03(crop: CropId) -> list[str]:
    """Both kinds of boxes, with the same pictures."""
    name = f"{crop.side}/{crop.identity:04d}_c{crop.camera}_{crop.index}.png"
    return [f"labeled/{name}", f"detected/{name}"]


def _msmt17(crop: CropId) -> list[str]:
    folder = "train" if crop.side == TRAIN else "test"
    number = crop.camera * 100 + crop.index
    return [f"{folder}/{crop.identity:04d}/{crop.identity:04d}_{number:03d}_{crop.camera:02d}_0303morning_0001_0.jpg"]


LAYOUTS: dict[str, Callable[[CropId], list[str]]] = {
    "market1501": _market1501,
    "dukemtmc": _dukemtmc,
    "cuhk03": _cuhk03,
    "msmt17": _msmt17,
}


def complete(layout: str, folder: Path, crops: Sequence[CropId]) -> None:
    """Add what a layout needs beside its crops: the lists of MSMT17, the folders of empty sides of the others.

    In the lists, labels start at 0 both in train and in test; `list_val.txt` has the last crop of each train identity.
    """
    if layout != "msmt17":
        for side in (TRAIN, QUERY, GALLERY):
            for name in LAYOUTS[layout](CropId(side, 1, 1, 1)):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
        return
    last = {crop.identity: crop for crop in crops if crop.side == TRAIN}
    lists = {
        "list_train.txt": [crop for crop in crops if crop.side == TRAIN and crop is not last[crop.identity]],
        "list_val.txt": list(last.values()),
        "list_query.txt": [crop for crop in crops if crop.side == QUERY],
        "list_gallery.txt": [crop for crop in crops if crop.side == GALLERY],
    }
    labels = {side: _labels(crops, side == TRAIN) for side in (TRAIN, QUERY, GALLERY)}
    for name, chosen in lists.items():
        lines = (f"{_inside(crop)} {labels[crop.side][crop.identity]}\n" for crop in chosen)
        (folder / name).write_text("".join(lines), encoding="utf-8")


def _inside(crop: CropId) -> PurePosixPath:
    """The path of a crop inside train/ or test/."""
    return PurePosixPath(*PurePosixPath(_msmt17(crop)[0]).parts[1:])


def _labels(crops: Sequence[CropId], train: bool) -> dict[int, int]:
    identities = dict.fromkeys(crop.identity for crop in crops if (crop.side == TRAIN) == train)
    return {identity: label for label, identity in enumerate(identities)}
