"""POST /v1/galleries/{gallery}/search: where else is this person?"""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from pan_reid.schemas import SearchAnswer, SearchOptions
from service.api.dependencies import (
    EMBEDDING_PROBLEMS,
    GalleryPath,
    SearchCaller,
    ServiceDep,
    parse_options,
    problems,
    respond,
    run_off_loop,
    run_until_disconnect,
)
from service.api.mapping import hit_view, person_view
from service.api.openapi import search_body
from service.api.parsing.body import read_body
from service.api.parsing.search import as_filter, embed_query, parse_query, require_model
from service.container import Container
from service.core.errors import BodyTooLarge
from service.core.types import Vectors
from service.galleries.match_policy import MatchPolicy, resolve_threshold
from service.index.gallery_index import GalleryIndex, Grouping
from service.index.metadata import Filter
from service.index.reranking import Reranking

router = APIRouter(tags=["search"])


@router.post(
    "/v1/galleries/{gallery}/search",
    summary="Search a gallery",
    openapi_extra=search_body(),
    responses={200: {"model": SearchAnswer}, **problems(404, 409, 507, *EMBEDDING_PROBLEMS)},
)
async def search(gallery: GalleryPath, request: Request, service: ServiceDep, caller: SearchCaller) -> Response:
    """By images, vectors of this model, or entries of the gallery; several are of one person, and fused as `fuse` says.

    Images as multipart files with the options as form fields, as one raw `image/*` body with the options in the query,
    or in JSON: one of `images` (base64), `vector`, `vectors` (numbers, or base64 float32), `entry_id` and `entry_ids`,
    beside the options. With `boxes`, one image is a frame that is cut into crops.
    """
    service.galleries.find(gallery)
    body = await read_body(request, service.settings)

    def parsed() -> tuple[str, Any, SearchOptions]:
        kind, value = parse_query(body, service.settings.max_images)
        return kind, value, parse_options(SearchOptions, body)

    kind, value, options = await run_off_loop(body, parsed)
    if options.top_k > service.settings.max_top_k:
        raise BodyTooLarge(f"top_k is {options.top_k}; at most {service.settings.max_top_k} hits are given")
    row, memory = service.galleries.for_search(gallery)
    require_model(service, row, kind, options)
    calibration = service.bundle.manifest.calibration if service.galleries.is_current(row) else None
    decision = resolve_threshold(calibration, options.false_positive_rate, options.threshold)

    async def answer() -> Response:
        async with service.entries.audit_concurrently(caller, "search", gallery, len(value)):
            query = await embed_query(service, row, kind, value)
            asked = (memory, query.fused(options.fuse), options.top_k, as_filter(query, options))
            look = _hits if options.group_by is None else _persons
            view, items = await look(service, gallery, asked, options, decision)
        told = {"gallery": gallery, "fused": len(query.vectors)}
        return await respond(lambda: {**told, **view(), **decision.view()}, items)

    return await run_until_disconnect(request, answer())


_Asked = tuple[GalleryIndex, Vectors, int, Filter]
_Found = tuple[Callable[[], dict[str, Any]], int]  # what builds the view, and of how many entries and persons


async def _hits(
    service: Container, gallery: str, asked: _Asked, options: SearchOptions, decision: MatchPolicy
) -> _Found:
    if options.rerank is None:
        hits = await service.searcher.hits(*asked)
    else:
        hits = await service.searcher.reranked(*asked, Reranking(**dict(options.rerank)))
    rows = await service.entries.by_id(gallery, [hit.entry_id for hit in hits])
    # An entry that was deleted since the search is no hit any more.
    there = [hit for hit in hits if hit.entry_id in rows]
    return lambda: {"hits": [hit_view(hit, rows[hit.entry_id], decision) for hit in there]}, len(there)


async def _persons(
    service: Container, gallery: str, asked: _Asked, options: SearchOptions, decision: MatchPolicy
) -> _Found:
    persons = await service.searcher.persons(*asked, Grouping(options.group_score, options.examples))
    rows = await service.entries.by_id(gallery, [hit.entry_id for one in persons for hit in one.examples])
    return lambda: {"persons": [person_view(one, rows, decision) for one in persons]}, len(persons) + len(rows)
