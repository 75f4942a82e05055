"""Readers of data sets; the layout is detected from the files."""

from collections.abc import Callable, Sequence
from pathlib import Path

from training.data.crops import ReidData, shared_persons
from training.data.readers.combine import combine
from training.data.readers.cuhk03 import scan_cuhk03, split_files
from training.data.readers.market import is_market, scan_market
from training.data.readers.msmt17 import is_msmt17, scan_msmt17
from training.data.readers.own import scan_csv, scan_folders
from training.data.readers.scan import Scan, Source
from training.errors import DataError

__all__ = ["Scan", "Source", "read_data", "scan_data"]


def read_data(path: Path | Sequence[Path], test: Path | None = None) -> ReidData:
    """Read a data set, or several to train on at once; `scan_data` says which layouts are known.

    Several data sets get separate person and camera ids. All are used for training; query and gallery are those of the
    first, or of `test` if it is given (a cross-domain test if it is another data set).

    Raises DataError for an unknown layout, entries that cannot be parsed, or persons on both sides of a split.
    """
    paths = [path] if isinstance(path, Path) else list(path)
    if not paths:
        raise DataError("no data set is given; give one path or several")
    if len({one.resolve() for one in paths}) < len(paths):
        raise DataError(f"a data set is named twice: {', '.join(map(str, paths))}")
    sets = [_read_one(one) for one in paths]
    if len(sets) == 1 and test is None:
        return sets[0]
    tested = sets[0] if test is None else _read_one(test)
    if test is not None and not (tested.query and tested.gallery):
        raise DataError(f"{test} is the test set and lacks query or gallery crops")
    return combine(sets, tested)


def scan_data(path: Path) -> Scan:
    """Read one data set; entries that cannot be parsed are listed. Raises DataError if its layout is not one of

    - `bounding_box_train/`, `query/`, `bounding_box_test/` with `PID_cC...` names: Market-1501, DukeMTMC-reID,
      `cuhk03-np/detected` and `cuhk03-np/labeled`;
    - `cuhk03_new_protocol_config_{detected,labeled}.mat` with `images_detected/` or `images_labeled/` beside it;
    - `list_train.txt`, `list_val.txt`, `list_query.txt`, `list_gallery.txt`: MSMT17;
    - a `.csv` file with columns path, person, camera and, if wanted, split (train, query, gallery);
    - a folder of `person/camera_*.jpg`.

    Without a split, the last two hold out a quarter of the identities (chosen by a hash of the name, so that adding
    persons does not change the split), and use the first crop of each of them in each camera as query.
    """
    if path.is_file() and path.suffix.lower() == ".csv":
        return scan_csv(path)
    if path.is_file() and path.suffix.lower() == ".mat":
        return scan_cuhk03(path)
    if not path.is_dir():
        raise DataError(f"there is no data set at {path}")
    path = path.absolute()  # "." has no name
    public = _public(path)
    if public is not None:
        return public(path)
    scan = scan_folders(path)
    if scan.unreadable or scan.data.train or scan.data.query:
        return scan
    inside = [str(child) for child in sorted(path.iterdir()) if child.is_dir() and _public(child)]
    if inside:
        raise DataError(f"{path} is not one data set; name one of {', '.join(inside)}")
    raise DataError(
        f"{path} holds neither bounding_box_train/ (Market-1501), list_train.txt (MSMT17), a split file of CUHK03 nor "
        "folders person/camera_*.jpg; for another layout write a CSV with columns path, person, camera"
    )


def _public(path: Path) -> Callable[[Path], Scan] | None:
    """The reader of a folder that has the layout of a public data set."""
    if is_market(path):
        return scan_market
    if is_msmt17(path):
        return scan_msmt17
    return _scan_split_file if split_files(path) else None


def _scan_split_file(path: Path) -> Scan:
    files = split_files(path)
    if len(files) > 1:
        raise DataError(f"{path} holds CUHK03 twice; name one split file: {', '.join(map(str, files))}")
    return scan_cuhk03(files[0])


def _read_one(path: Path) -> ReidData:
    scan = scan_data(path)
    if scan.unreadable:
        raise DataError(
            f"{len(scan.unreadable)} entries of {path} cannot be parsed: {scan.unreadable[0]}; "
            f"`pan-train data check {path}` lists them all"
        )
    shared = shared_persons(scan.data)
    if shared:
        raise DataError(
            f"{path}: {len(shared)} identities are both in train and in query or gallery; figures would be invalid"
        )
    return scan.data
