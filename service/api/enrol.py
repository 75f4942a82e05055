"""POST /v1/galleries/{gallery}/entries: enrol crops, all or those that can be used, once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import orjson
from fastapi import APIRouter, Header, Request, Response

from bundle import ImageError
from service.answers import Json, dumps, item_error
from service.api.deps import (
    EMBEDDING_PROBLEMS,
    EnrolCaller,
    GalleryPath,
    ServiceDep,
    beside,
    parse_list,
    parse_options,
    problems,
    while_connected,
)
from service.api.docs import enrol_body
from service.api.inputs import image_from_base64, some_usable, take_pictures, unit_vector
from service.api.views import microseconds
from service.body import Body, Image, read_body
from service.engine import Vectors
from service.entries import IdempotencyKey
from service.errors import BodyTooLarge, InvalidRequest
from service.frames import Box
from service.purger import refuse_expired
from service.records import NewEntry
from service.runtime import Service
from service.schemas import Enrolled, EntryInfo

router = APIRouter(prefix="/v1/galleries/{gallery}/entries", tags=["entries"])

KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=128,
        description="a new one for each request: a retry with it gets the first answer and enrols nothing twice",
    ),
]


@router.post(
    "",
    summary="Enrol crops",
    status_code=201,
    openapi_extra=enrol_body(),
    responses={
        201: {"model": Enrolled, "description": "Every crop is enrolled, and on disk."},
        207: {"model": Enrolled, "description": "Some crops failed, their results say why; the others are enrolled."},
        **problems(404, 409, 507, *EMBEDDING_PROBLEMS),
    },
)
async def enrol(
    gallery: GalleryPath, request: Request, service: ServiceDep, caller: EnrolCaller, idempotency_key: KeyHeader = None
) -> Response:
    """Many crops at once: multipart files with a JSON list `metadata` in their order, or the JSON list `entries`,
    each with an `image` (base64) or a `vector` of this model; or one raw `image/*` body with its metadata in the query.
    With `boxes`, one file or raw image is a frame that is cut into crops, and `metadata` describes one crop a box.
    """
    service.galleries.require_current(service.galleries.find(gallery).row)
    body = await read_body(request, service.settings)
    key = IdempotencyKey(idempotency_key, body.digest()) if idempotency_key else None
    if key is not None and (earlier := await service.entries.answered(gallery, key)):
        return Json(earlier.answer, earlier.status)
    crops = await beside(body, lambda: _json_crops(body, service) if body.is_json else _pictures(body))
    _require_no_more(len(crops.infos), service.settings.max_images)
    known = [new_entry(info) for info in crops.infos]
    refuse_expired(known, service.galleries.find(gallery), service.galleries.clock())
    keep = service.galleries.find(gallery).row.keep_crops
    outcomes = await while_connected(request, _embed(service, crops, keep))
    some_usable(outcomes, crops.names)
    good = [place for place, outcome in enumerate(outcomes) if not isinstance(outcome, ImageError)]
    vectors, images = zip(*(outcome for outcome in outcomes if not isinstance(outcome, ImageError)), strict=True)

    def answer(ids: list[int]) -> tuple[int, bytes]:
        ids_by_place = dict(zip(good, ids, strict=True))
        results: list[dict[str, Any]] = [
            {"index": place, "error": item_error(outcome)}
            if isinstance(outcome, ImageError)
            else {"index": place, "entry_id": ids_by_place[place]}
            for place, outcome in enumerate(outcomes)
        ]
        failed = len(outcomes) - len(ids)
        return 207 if failed else 201, dumps({"enrolled": len(ids), "failed": failed, "results": results})

    entries = [known[place] for place in good]
    answered = await service.entries.enrol(caller, gallery, entries, np.stack(vectors), answer, key, images)
    return Json(answered.answer, answered.status)


_Outcome = tuple[Vectors, bytes | None]  # of a crop: its embedding, and its picture where that is kept


@dataclass(frozen=True, slots=True)
class _Crops:
    """What is known of each crop, and the crops: images and vectors, or one frame and its boxes."""

    infos: list[EntryInfo]
    crops: list[Image | Vectors]
    boxes: list[Box] | None
    names: list[str]


async def _embed(service: Service, crops: _Crops, keep: bool) -> list[_Outcome | ImageError]:
    """Vectors that came ready stay as they are; images are embedded, and made ready to be kept."""
    images = [crop for crop in crops.crops if isinstance(crop, bytes | ImageError)]
    embedded = await embed_crops(service, images, crops.boxes, keep) if images else []
    if crops.boxes is not None:
        return list(embedded)
    rest = iter(embedded)
    return [next(rest) if isinstance(crop, bytes | ImageError) else (crop, None) for crop in crops.crops]


async def embed_crops(
    service: Service, images: Sequence[Image], boxes: Sequence[Box] | None, keep: bool
) -> Sequence[tuple[Vectors, bytes | None] | ImageError]:
    """The (D,) vector of each, and its picture where that is to be kept. Raises as `Embedder.embed`."""
    if keep:
        return await service.embedder.embed_keeping(images, boxes)
    vectors = await service.embedder.embed(images, boxes)
    return [one if isinstance(one, ImageError) else (one, None) for one in vectors]


def _json_crops(body: Body, service: Service) -> _Crops:
    items = body.members.pop("entries", None)
    _nothing_left(body)
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise InvalidRequest("`entries` is a list of objects, and there is at least one")
    _require_no_more(len(items), service.settings.max_images)
    crops = [pop_crop(item, service.bundle.manifest.output.dim) for item in items]
    return _Crops(parse_list(EntryInfo, items), crops, None, [f"entries.{index}" for index in range(len(items))])


def _pictures(body: Body) -> _Crops:
    pictures = take_pictures(body)
    return _Crops(_metadata(body, len(pictures)), list(pictures.images), pictures.boxes, pictures.names)


def pop_crop(item: dict[str, Any], dim: int) -> Image | Vectors:
    """The crop of an entry in JSON, taken out of its members. Raises InvalidRequest."""
    if ("image" in item) == ("vector" in item):
        raise InvalidRequest("each entry has either an `image` or a `vector`")
    return image_from_base64(item.pop("image")) if "image" in item else unit_vector(item.pop("vector"), dim)


def _metadata(body: Body, count: int) -> list[EntryInfo]:
    if "metadata" not in body.members:  # of one crop, or the same for all
        return [parse_options(EntryInfo, body)] * count
    text = body.members.pop("metadata")
    _nothing_left(body)
    try:
        items = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"`metadata` is not JSON: {error}") from None
    if isinstance(items, list) and len(items) != count:
        raise InvalidRequest(f"`metadata` describes {len(items)} crops and there are {count}")
    return parse_list(EntryInfo, items)


def _require_no_more(count: int, most: int) -> None:
    if count > most:
        raise BodyTooLarge(f"{count} entries in one request; at most {most} are accepted")


def _nothing_left(body: Body) -> None:
    if body.members:
        raise InvalidRequest(f"unknown members: {', '.join(sorted(body.members))}")


def new_entry(info: EntryInfo) -> NewEntry:
    """What is known of a crop as the database takes it."""
    attributes = orjson.dumps(info.attributes).decode()
    return NewEntry(info.person_id, info.camera_id, microseconds(info.captured_at), attributes)
