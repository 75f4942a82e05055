"""Crops to enrol, parsed from a body or from a line of a stream. A crop that cannot be parsed becomes its error."""

from collections.abc import Callable
from typing import Any, TypeVar

import orjson

from bundle import PanError
from pan_reid.schemas import EntryInfo
from service.api.mapping import optional_micros
from service.api.parsing.body import Body
from service.api.parsing.images import image_from_base64, parse_images, parse_vector, require_count
from service.api.parsing.json_text import VALUES_PER_CROP, parse_json
from service.api.parsing.validation import parse, parse_options
from service.core.errors import InvalidRequest
from service.core.models import NewEntry
from service.galleries.commands import Crop, EnrolCrops

T = TypeVar("T")


def parse_enrolment(caller: str, gallery: str, body: Body, max_crops: int) -> EnrolCrops:
    """Raises InvalidRequest, or BodyTooLarge for more than `max_crops` crops."""
    if body.is_json:
        return _parse_entries(caller, gallery, body, max_crops)
    images = parse_images(body, max_crops)
    sources: tuple[Any, ...] = images.images if images.boxes is None else images.boxes
    crops: tuple[Crop | PanError, ...]
    if "metadata" in body.members:
        entries = [_or_error(_parse_entry, item) for item in _parse_metadata(body, len(sources))]
        crops = tuple(
            entry if isinstance(entry, PanError) else Crop(entry, source)
            for entry, source in zip(entries, sources, strict=True)
        )
    else:  # the same metadata for all
        entry = new_entry(parse_options(EntryInfo, body))
        crops = tuple(Crop(entry, source) for source in sources)
    if images.boxes is None:
        return EnrolCrops(caller, gallery, crops, member="images")
    return EnrolCrops(caller, gallery, crops, frame=images.images[0], member="boxes")


def parse_crop_or_error(item: Any) -> Crop | PanError:
    """A crop in JSON, with an image or a vector; or its error."""
    return _or_error(_parse_crop, item)


def new_entry(info: EntryInfo) -> NewEntry:
    """The metadata of a crop as the database stores it."""
    attributes = orjson.dumps(info.attributes).decode()
    return NewEntry(info.person_id, info.camera_id, optional_micros(info.captured_at), attributes)


def _parse_entries(caller: str, gallery: str, body: Body, max_crops: int) -> EnrolCrops:
    items = body.members.pop("entries", None)
    _require_no_more(body)
    if not isinstance(items, list) or not items:
        raise InvalidRequest("`entries` is a list of objects, and there is at least one")
    require_count(items, "entries", max_crops)
    return EnrolCrops(caller, gallery, tuple(parse_crop_or_error(item) for item in items))


def _parse_metadata(body: Body, count: int) -> list[Any]:
    items = parse_json(body.members.pop("metadata"), count * VALUES_PER_CROP, "`metadata`")
    _require_no_more(body)
    if not isinstance(items, list):
        raise InvalidRequest("`metadata` is a list of objects, one for each crop")
    if len(items) != count:
        raise InvalidRequest(f"`metadata` describes {len(items)} crops and there are {count}")
    return items


def _require_no_more(body: Body) -> None:
    if body.members:
        raise InvalidRequest(f"unknown members: {', '.join(sorted(body.members))}")


def _parse_crop(item: Any) -> Crop:
    if not isinstance(item, dict):
        raise InvalidRequest(f"the entry is a JSON {type(item).__name__}; an object is needed")
    if ("image" in item) == ("vector" in item):
        raise InvalidRequest("each entry has either an `image` or a `vector`")
    if "image" in item:
        source = image_from_base64(item.pop("image"))
        return Crop(_parse_entry(item), source)
    vector = parse_vector(item.pop("vector"))
    return Crop(_parse_entry(item), vector)


def _parse_entry(item: Any) -> NewEntry:
    return new_entry(parse(EntryInfo, item))


def _or_error(parse_one: Callable[[Any], T], item: Any) -> T | PanError:
    try:
        return parse_one(item)
    except PanError as error:
        return error
