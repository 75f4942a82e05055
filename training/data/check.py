"""`pan-train data check`: finds problems of a data set before training."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bundle import ImageError, decode_image
from training.callbacks import ProgressCallback
from training.data.crops import DISTRACTOR, JUNK, Crop, shared_persons, trainable, unmatched
from training.data.readers import Scan, scan_data

CHUNK = 1024  # files in flight, so that a large data set does not create a future for every file


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem of the data set. `must_fix`: figures would be wrong or training would stop; otherwise it is a note."""

    code: str
    must_fix: bool
    message: str
    cases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Side:
    """Counts of train, query or gallery; junk and distractors count as crops, not as identities."""

    crops: int
    identities: int
    cameras: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """Minimum, median and maximum, in pixels and as height / width."""

    height: tuple[float, float, float]
    width: tuple[float, float, float]
    aspect: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Report:
    """`known_as` is the public data set with this layout and names; `sizes` is None if no file decodes."""

    name: str
    known_as: str | None
    sides: dict[str, Side]
    sizes: Sizes | None
    findings: tuple[Finding, ...]

    @property
    def usable(self) -> bool:
        """Whether no finding must be fixed."""
        return not any(finding.must_fix for finding in self.findings)


@dataclass(frozen=True, slots=True)
class _Picture:
    pixels: bytes  # a digest of the pixels: identical for lossless copies of a picture
    height: int
    width: int


def check_data(path: Path, progress: ProgressCallback | None = None) -> Report:
    """Read a data set, decode every file and look for problems of training and evaluation.

    `progress` is called with (files done, files in all). Raises DataError if there is no data set.
    """
    scan = scan_data(path)
    data = scan.data
    sides = {"train": data.train, "query": data.query, "gallery": data.gallery}
    files = sorted({crop.path for side in sides.values() for crop in side})
    pictures: dict[Path, _Picture] = {}
    broken = []
    for done, (file, seen) in enumerate(_look(files), start=1):
        if isinstance(seen, _Picture):
            pictures[file] = seen
        else:
            broken.append(seen)
        if progress:
            progress(done, len(files))
    findings = [*_layout(scan), *_identities(scan), *_duplicates(sides, pictures), *_shapes(pictures)]
    if broken:
        findings.append(Finding("broken", True, f"files that cannot be decoded: {len(broken)}", tuple(broken)))
    findings.sort(key=lambda finding: not finding.must_fix)
    described = {name: _side(side) for name, side in sides.items()}
    return Report(
        data.name, scan.source.title if scan.source else None, described, _sizes(pictures.values()), tuple(findings)
    )


def _look(files: Sequence[Path]) -> Iterator[tuple[Path, _Picture | str]]:
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode") as pool:
        for start in range(0, len(files), CHUNK):
            chunk = files[start : start + CHUNK]
            yield from zip(chunk, pool.map(_picture, chunk), strict=True)


def _picture(file: Path) -> _Picture | str:
    try:
        image = decode_image(file.read_bytes())
    except (ImageError, OSError) as error:
        return f"{file}: {error}"
    height, width, _ = image.shape
    return _Picture(hashlib.sha256(f"{height} {width} ".encode() + image.tobytes()).digest(), height, width)


def _side(crops: Sequence[Crop]) -> Side:
    persons = {crop.person for crop in crops if crop.person > DISTRACTOR}
    return Side(len(crops), len(persons), len({crop.camera for crop in crops}))


def _sizes(pictures: Collection[_Picture]) -> Sizes | None:
    if not pictures:
        return None
    height, width = np.array([(picture.height, picture.width) for picture in pictures], dtype=np.float64).T
    return Sizes(_spread(height), _spread(width), _spread(height / width))


def _spread(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values.min()), float(np.median(values)), float(values.max())


def _layout(scan: Scan) -> Iterator[Finding]:
    data, source = scan.data, scan.source
    if scan.unreadable:
        message = f"entries that cannot be parsed, excluded from all other checks: {len(scan.unreadable)}"
        yield Finding("not-understood", True, message, scan.unreadable)
    for side in ("train", "query", "gallery"):
        if not getattr(data, side):
            lost = "trained on" if side == "train" else "evaluated"
            yield Finding("empty-side", False, f"{side} is empty: this data set cannot be {lost}")
    if source is None:
        return
    found, official = (
        (len(data.train), len(data.query), len(data.gallery)),
        (source.train, source.query, source.gallery),
    )
    if found != official:
        here, there = (f"{train:,} / {query:,} / {gallery:,}" for train, query, gallery in (found, official))
        message = (
            f"train / query / gallery hold {here} crops, those of {source.title} {there}: figures are not comparable"
        )
        yield Finding("not-official", False, message)
    if data.notice:
        yield Finding("notice", False, data.notice)


def _identities(scan: Scan) -> Iterator[Finding]:
    data = scan.data
    shared = shared_persons(data)
    if shared:
        cases = tuple(sorted({str(crop.path) for crop in data.train if crop.person in shared}))
        yield Finding("train-in-test", True, f"identities in train and in query or gallery: {len(shared)}", cases)
    train = [crop for crop in data.train if crop.person > DISTRACTOR]
    if data.train and not trainable(train)[0]:
        yield Finding("nothing-to-train", True, "no identity of train has two crops; no triplet can be made")
    for side, lost in (("train", "not trained on"), ("query", "not counted")):
        nobody = tuple(str(crop.path) for crop in getattr(data, side) if crop.person <= DISTRACTOR)
        if nobody:
            message = f"crops of {side} named -1 (junk) or 0000 (distractor), {lost}: {len(nobody)}"
            yield Finding(f"nobody-in-{side}", False, message, nobody)
    counts = Counter(crop.person for crop in train)
    single = tuple(str(crop.path) for crop in train if counts[crop.person] == 1)
    if single:
        yield Finding("one-crop", False, f"identities of train with one crop, not trained on: {len(single)}", single)
    seen_by = defaultdict(set)
    for crop in train:
        seen_by[crop.person].add(crop.camera)
    alone = {person for person, seen in seen_by.items() if len(seen) == 1 and counts[person] > 1}
    if alone:
        first = {crop.person: str(crop.path) for crop in reversed(train) if crop.person in alone}
        message = f"identities of train with one camera, useless for cross-camera training: {len(alone)}"
        yield Finding("one-camera", False, message, tuple(sorted(first.values())))
    yield from _queries(data.query, data.gallery)


def _queries(query: Sequence[Crop], gallery: Sequence[Crop]) -> Iterator[Finding]:
    if not query or not gallery:
        return
    persons = [crop for crop in query if crop.person > DISTRACTOR]
    skipped = tuple(str(crop.path) for crop in unmatched(persons, gallery))
    if len(skipped) == len(persons):
        yield Finding("no-positive", True, "no query has its person in gallery under another camera", skipped)
    elif skipped:
        message = f"queries without their person in gallery under another camera, not counted: {len(skipped)}"
        yield Finding("no-positive", False, message, skipped)


DUPLICATES = {
    "same-picture-train-test": (True, "pictures in train and in query or gallery"),
    "same-picture-two-people": (True, "pictures filed under several identities"),
    "same-picture-two-cameras": (True, "pictures filed under several cameras"),
    "same-picture-query-gallery": (False, "pictures in query and gallery, dropped by the rules as of one camera"),
    "same-picture": (False, "pictures more than once in train, query or gallery, under one identity and camera"),
}


def _duplicates(sides: dict[str, tuple[Crop, ...]], pictures: dict[Path, _Picture]) -> Iterator[Finding]:
    """Pictures that occur more than once; junk is ignored because nothing uses it."""
    groups: defaultdict[bytes, list[tuple[str, Crop]]] = defaultdict(list)
    for side, crops in sides.items():
        for crop in crops:
            if crop.person != JUNK and crop.path in pictures:
                groups[pictures[crop.path].pixels].append((side, crop))
    cases: defaultdict[str, list[str]] = defaultdict(list)
    for group in groups.values():
        if len(group) > 1:
            cases[_duplicate(group)].append(" = ".join(str(crop.path) for _, crop in group))
    for code, (must_fix, message) in DUPLICATES.items():
        if cases[code]:
            yield Finding(code, must_fix, f"{message}: {len(cases[code])}", tuple(cases[code]))


def _duplicate(group: Sequence[tuple[str, Crop]]) -> str:
    sides = {side for side, _ in group}
    if "train" in sides and len(sides) > 1:
        return "same-picture-train-test"
    if len({crop.person for _, crop in group}) > 1:
        return "same-picture-two-people"
    if len({crop.camera for _, crop in group}) > 1:
        return "same-picture-two-cameras"
    return "same-picture-query-gallery" if len(sides) > 1 else "same-picture"


def _shapes(pictures: dict[Path, _Picture]) -> Iterator[Finding]:
    wide = tuple(str(file) for file, picture in pictures.items() if picture.width > picture.height)
    if wide:
        yield Finding("wide", False, f"crops wider than high, unusual for a standing person: {len(wide)}", wide)
