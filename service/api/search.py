"""POST /v1/galleries/{gallery}/search: where else is this person?"""

import asyncio
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from service.answers import Json
from service.api.deps import EMBEDDING_PROBLEMS, GalleryPath, SearchCaller, ServiceDep, parse, problems, while_connected
from service.api.docs import search_body
from service.api.embeddings import take_images
from service.api.inputs import all_usable, fused, unit_vector
from service.api.views import hit_view
from service.body import Body, read_body
from service.columns import Filter
from service.decision import decide
from service.engine import Vectors
from service.errors import BodyTooLarge, InvalidRequest
from service.runtime import Service
from service.schemas import SearchAnswer, SearchOptions

router = APIRouter(tags=["search"])

_QUERIES = ("images", "vector", "entry_id")
_LISTS = ("cameras", "exclude_cameras")


@dataclass(frozen=True, slots=True)
class _Query:
    vector: Vectors
    fused: int
    entry_id: int | None = None


@router.post(
    "/v1/galleries/{gallery}/search",
    summary="Search a gallery",
    openapi_extra=search_body(),
    responses={200: {"model": SearchAnswer}, **problems(404, 409, 507, *EMBEDDING_PROBLEMS)},
)
async def search(gallery: GalleryPath, request: Request, service: ServiceDep, caller: SearchCaller) -> Response:
    """By images (several of one person are fused by their mean), by a vector of this model, or by an entry.

    Images as multipart files with the options as form fields, as one raw `image/*` body with the options in the query,
    or in JSON: one of `images` (base64), `vector` (numbers, or base64 float32) and `entry_id`, beside the options.
    """
    memory = service.galleries.memory(gallery)
    body = await read_body(request, service.settings)
    asked: dict[str, Any] = {name: body.members.pop(name) for name in _QUERIES if name in body.members}
    options = parse(SearchOptions, _with_lists(body.members))
    if options.top_k > service.settings.max_top_k:
        raise BodyTooLarge(f"top_k is {options.top_k}; at most {service.settings.max_top_k} hits are given")
    decision = decide(service.bundle.manifest.calibration, options.false_positive_rate, options.threshold)
    query = await while_connected(request, _query(service, gallery, body, asked))
    where = await _filter(service, gallery, query, options)
    audit = service.entries.audit(caller, "search", gallery, query.fused)
    if options.group_by is None:
        hits, _ = await asyncio.gather(service.searcher.hits(memory, query.vector, options.top_k, where), audit)
        rows = await service.entries.by_id(gallery, [hit.entry_id for hit in hits])
        # An entry deleted since the search is no hit any more.
        found: dict[str, Any] = {
            "hits": [hit_view(hit, rows[hit.entry_id], decision) for hit in hits if hit.entry_id in rows]
        }
    else:
        persons, _ = await asyncio.gather(
            service.searcher.persons(memory, query.vector, options.top_k, where, options.examples), audit
        )
        rows = await service.entries.by_id(gallery, [hit.entry_id for one in persons for hit in one.examples])
        found = {
            "persons": [
                {
                    "person_id": one.person_id,
                    "best": one.best,
                    "mean": one.mean,
                    "entries": one.entries,
                    **decision.judge(one.best),
                    "hits": [
                        hit_view(hit, rows[hit.entry_id], decision) for hit in one.examples if hit.entry_id in rows
                    ],
                }
                for one in persons
            ]
        }
    return Json({"gallery": gallery, "fused": query.fused, **found, **decision.view()})


async def _query(service: Service, gallery: str, body: Body, asked: dict[str, Any]) -> _Query:
    if body.is_json and len(asked) != 1:
        raise InvalidRequest("a search has exactly one of `images`, `vector` and `entry_id`")
    if "vector" in asked:
        return _Query(unit_vector(asked["vector"], service.bundle.manifest.output.dim), 1)
    if "entry_id" in asked:
        entry_id = asked["entry_id"]
        if type(entry_id) is not int or not 0 < entry_id < 2**63:
            raise InvalidRequest("`entry_id` is a positive integer")
        return _Query(await service.entries.vector(gallery, entry_id), 1, entry_id)
    if body.is_json:
        body.members["images"] = asked["images"]
    elif asked:
        raise InvalidRequest(f"{', '.join(asked)} is a member of JSON bodies; send images as files")
    vectors = all_usable(await service.embedder.embed(take_images(body)))
    return _Query(fused(vectors), len(vectors))


async def _filter(service: Service, gallery: str, query: _Query, options: SearchOptions) -> Filter:
    camera, person = options.camera_id, options.person_id
    if query.entry_id is not None:
        entry = await service.entries.get(gallery, query.entry_id)
        camera, person = camera or entry.camera_id, person or entry.person_id
    excluded = set(options.exclude_cameras)
    person_at_camera = None
    if options.exclude_same_camera:
        if camera is None:
            raise InvalidRequest("exclude_same_camera needs the query's camera: give camera_id")
        excluded.add(camera)
    if options.exclude_same_person_same_camera:
        if camera is None or person is None:
            raise InvalidRequest("exclude_same_person_same_camera needs the query's person_id and camera_id")
        person_at_camera = (person, camera)
    return Filter(
        cameras=None if options.cameras is None else frozenset(options.cameras),
        exclude_cameras=frozenset(excluded),
        exclude_person_at_camera=person_at_camera,
        exclude_entry=query.entry_id,
    )


def _with_lists(members: dict[str, Any]) -> dict[str, Any]:
    """A form field or query parameter that came once is a list of one where a list is wanted."""
    return {name: [value] if name in _LISTS and isinstance(value, str) else value for name, value in members.items()}
