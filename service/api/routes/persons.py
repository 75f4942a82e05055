"""/v1/galleries/{gallery}/persons: who is in a gallery, and erasing someone from it."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Response

from pan_reid.schemas import ErasureReceipt, Identifier, PersonPage
from service.api.dependencies import EraseCaller, ExportCaller, GalleryPath, Limit, ServiceDep, problems, respond
from service.api.mapping import moment
from service.api.responses import JsonResponse
from service.core.clock import now

router = APIRouter(prefix="/v1/galleries/{gallery}/persons", tags=["persons"])

# An id is any text, so it is never a part of the path: HTTP clients and proxies fold `/persons/..`, and many of them
# `/persons/%2E%2E` as well, into the path of the gallery.
PersonQuery = Annotated[Identifier, Query(description="the id, in full")]


@router.get("", summary="List persons", responses={200: {"model": PersonPage}, **problems(404, 503)})
async def list_persons(
    gallery: GalleryPath,
    service: ServiceDep,
    _: ExportCaller,
    cursor: Annotated[str, Query(max_length=128, description="`next_cursor` of the page before")] = "",
    limit: Limit = 100,
) -> Response:
    """By id, with how many entries there are of each and from how many cameras."""
    rows = await service.entries.persons(gallery, after=cursor, limit=limit + 1)
    more = len(rows) > limit
    cursor_after = rows[limit - 1].person_id if more else None
    return await respond(
        lambda: {
            "persons": [
                {"person_id": row.person_id, "entries": row.entries, "cameras": row.cameras} for row in rows[:limit]
            ],
            "next_cursor": cursor_after,
        },
        len(rows),
    )


@router.delete("", summary="Erase a person", responses={200: {"model": ErasureReceipt}, **problems(404, 503, 507)})
async def erase_person(
    gallery: GalleryPath, person_id: PersonQuery, service: ServiceDep, caller: EraseCaller
) -> Response:
    """Every entry of the person in this gallery; the answer is the receipt."""
    erasure = await service.entries.erase_person(caller, gallery, person_id)
    return JsonResponse({"gallery": gallery, "person_id": person_id, **asdict(erasure), "erased_at": moment(now())})
