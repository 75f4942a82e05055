"""POST /v1/galleries/{gallery}/entries: enrol crops, those that can be used, once."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ParamSpec, TypeVar

import orjson
from fastapi import APIRouter, Header, Request, Response

from bundle import ImageError, PanError
from pan_reid.schemas import Enrolled, EntryInfo
from service.api.dependencies import (
    EMBEDDING_PROBLEMS,
    EnrolCaller,
    GalleryPath,
    ServiceDep,
    parse,
    parse_options,
    problems,
    run_off_loop,
    run_until_disconnect,
)
from service.api.mapping import microseconds
from service.api.openapi import enrol_body
from service.api.parsing.body import Body, read_body
from service.api.parsing.images import image_from_base64, parse_images, require_count, unit_vector
from service.api.parsing.json_text import VALUES_PER_CROP, parse_json
from service.api.responses import JsonResponse
from service.container import Container
from service.core.errors import InvalidRequest, UnusableImages
from service.core.models import NewEntry
from service.core.types import Image
from service.galleries.catalog import LoadedGallery
from service.galleries.enrolment import Crop, Outcome, Parsed
from service.galleries.enrolment_results import Batch, Range
from service.galleries.entries import IdempotencyKey
from service.workers.retention import refuse_expired

P = ParamSpec("P")
T = TypeVar("T")

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
    A crop that cannot be used fails alone; a request of which none can is refused.
    """
    held = service.galleries.find(gallery)
    service.galleries.require_current(held.row)
    body = await read_body(request, service.settings)
    key = None
    if idempotency_key is not None:
        key = IdempotencyKey(idempotency_key, await asyncio.to_thread(body.digest))
        if earlier := await service.entries.answered(held, key):
            return _answer(earlier)
    crops = await run_off_loop(
        body, lambda: _json_crops(body, held, service) if body.is_json else _pictures(body, held, service)
    )
    outcomes = await run_until_disconnect(request, service.enrolment.embed(held, crops.parsed, crops.frame))
    _require_some(outcomes, crops.name)
    return _answer(await service.enrolment.commit(caller, held, outcomes, key))


def _answer(batch: Batch) -> Response:
    results: list[dict[str, Any]] = []
    for outcome in batch.outcomes(0, batch.count):
        if isinstance(outcome, Range):
            places = range(outcome.count)
            results += ({"index": outcome.index + n, "entry_id": outcome.entry_id + n} for n in places)
        else:
            results.append({"index": outcome.index, "error": outcome.error})
    failed = len(batch.failures)
    return JsonResponse(
        {"enrolled": batch.count - failed, "failed": failed, "results": results}, 207 if failed else 201
    )


def _require_some(outcomes: list[Outcome], name: str) -> None:
    """Raises the error of the one crop there is, or one for all, where none can be used."""
    errors = [outcome for outcome in outcomes if isinstance(outcome, PanError)]
    if len(errors) < len(outcomes):
        return
    if len(errors) == 1:
        raise errors[0]
    failures = [
        {"at": f"{name}.{place}", "problem": str(error), "code": error.code} for place, error in enumerate(errors)
    ]
    kind = UnusableImages if any(isinstance(error, ImageError) for error in errors) else InvalidRequest
    raise kind(f"none of the {len(errors)} crops can be used; the first: {errors[0]}", failures)


@dataclass(frozen=True, slots=True)
class _Crops:
    """Crops as they were read, the frame that they are boxes of, and the member of the request that lists them."""

    parsed: list[Parsed]
    frame: Image | None
    name: str


def _json_crops(body: Body, held: LoadedGallery, service: Container) -> _Crops:
    items = body.members.pop("entries", None)
    _nothing_left(body)
    if not isinstance(items, list) or not items:
        raise InvalidRequest("`entries` is a list of objects, and there is at least one")
    require_count(items, "entries", service.settings.max_images)
    return _Crops([attempt(parse_crop, item, held, service) for item in items], None, "entries")


def _pictures(body: Body, held: LoadedGallery, service: Container) -> _Crops:
    pictures = parse_images(body, service.settings.max_images)
    sources: list[Any] = pictures.images if pictures.boxes is None else pictures.boxes
    if "metadata" in body.members:
        items = _metadata(body, len(sources))
        entries = [attempt(parse_entry, item, held, service) for item in items]
        parsed: list[Parsed] = [
            entry if isinstance(entry, PanError) else Crop(entry, source)
            for entry, source in zip(entries, sources, strict=True)
        ]
    else:  # of one crop, or the same for all
        of_all = _entry(parse_options(EntryInfo, body), held, service)
        parsed = [Crop(of_all, source) for source in sources]
    if pictures.boxes is None:
        return _Crops(parsed, None, "images")
    return _Crops(parsed, pictures.images[0], "boxes")


def _metadata(body: Body, count: int) -> list[Any]:
    items = parse_json(body.members.pop("metadata"), count * VALUES_PER_CROP, "`metadata`")
    _nothing_left(body)
    if not isinstance(items, list):
        raise InvalidRequest("`metadata` is a list of objects, one for each crop")
    if len(items) != count:
        raise InvalidRequest(f"`metadata` describes {len(items)} crops and there are {count}")
    return items


def _nothing_left(body: Body) -> None:
    if body.members:
        raise InvalidRequest(f"unknown members: {', '.join(sorted(body.members))}")


def attempt(parse: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T | PanError:
    """What is read of one crop, or why it cannot be used."""
    try:
        return parse(*arguments, **named)
    except PanError as error:
        return error


def parse_crop(item: Any, held: LoadedGallery, service: Container) -> Crop:
    """A crop in JSON, a picture or a vector. Raises InvalidRequest."""
    if not isinstance(item, dict):
        raise InvalidRequest(f"the entry is a JSON {type(item).__name__}; an object is needed")
    if ("image" in item) == ("vector" in item):
        raise InvalidRequest("each entry has either an `image` or a `vector`")
    vector = item.pop("vector", None)
    source = image_from_base64(item.pop("image")) if "image" in item else unit_vector(vector, held.row.dim)
    return Crop(parse_entry(item, held, service), source)


def parse_entry(item: Any, held: LoadedGallery, service: Container) -> NewEntry:
    """What is known of a crop. Raises InvalidRequest, also where the gallery does not keep a crop of its age."""
    return _entry(parse(EntryInfo, item), held, service)


def _entry(info: EntryInfo, held: LoadedGallery, service: Container) -> NewEntry:
    entry = new_entry(info)
    refuse_expired(entry, held, service.galleries.clock())
    return entry


def new_entry(info: EntryInfo) -> NewEntry:
    """What is known of a crop as the database takes it."""
    attributes = orjson.dumps(info.attributes).decode()
    return NewEntry(info.person_id, info.camera_id, microseconds(info.captured_at), attributes)
