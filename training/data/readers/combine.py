"""Combines several data sets; persons and cameras get separate ids."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from training.data.crops import DISTRACTOR, Crop, ReidData


def combine(sets: Sequence[ReidData], tested: ReidData) -> ReidData:
    """Train on all of `sets`, evaluate on the query and gallery of `tested`, which may be one of them.

    `tested` keeps its ids, so that figures by camera use the camera numbers of its files.
    """
    persons, cameras = _next(tested)
    train: list[Crop] = []
    for data in sets:
        if data is tested:
            train += data.train
            continue
        train += _moved(data.train, persons, cameras)
        more_persons, more_cameras = _next(data)
        persons, cameras = persons + more_persons, cameras + more_cameras
    name = f"{'+'.join(data.name for data in sets)}, tested on {tested.name}"
    notice = " ".join(sorted({data.notice for data in (*sets, tested) if data.notice}))
    return ReidData(name, tuple(train), tested.query, tested.gallery, notice=notice)


def _next(data: ReidData) -> tuple[int, int]:
    """The first person and camera after those of a data set."""
    crops = (*data.train, *data.query, *data.gallery)
    return max((crop.person for crop in crops), default=0) + 1, max((crop.camera for crop in crops), default=0) + 1


def _moved(crops: Iterable[Crop], persons: int, cameras: int) -> list[Crop]:
    """Shift person and camera ids; junk and distractors keep theirs."""
    return [
        replace(
            crop,
            person=crop.person + persons if crop.person > DISTRACTOR else crop.person,
            camera=crop.camera + cameras,
        )
        for crop in crops
    ]
