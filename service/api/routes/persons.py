"""/v1/galleries/{gallery}/persons: list the persons of a gallery, and erase one."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from pan_reid.schemas import ErasureReceipt, Identifier, PersonPage
from service.api.auth import EraseCaller, ExportCaller
from service.api.dependencies import GalleryPath, Limit, UseCasesDep
from service.api.mapping import receipt_view
from service.api.openapi import problems
from service.api.responses import JsonResponse, respond
from service.galleries.commands import ErasePerson, ListPersons

router = APIRouter(prefix="/v1/galleries/{gallery}/persons", tags=["persons"])

# An id can be any text, so it is never a part of the path: HTTP clients and proxies normalise `/persons/..`, and many
# of them `/persons/%2E%2E` as well, to the path of the gallery.
PersonQuery = Annotated[Identifier, Query(description="the complete id")]


@router.get("", summary="List persons", responses={200: {"model": PersonPage}, **problems(404, 503)})
async def list_persons(
    gallery: GalleryPath,
    use_cases: UseCasesDep,
    _: ExportCaller,
    cursor: Annotated[str, Query(max_length=128, description="`next_cursor` of the previous page")] = "",
    limit: Limit = 100,
) -> Response:
    """A page of persons, sorted by id, with the numbers of their entries and cameras."""
    page = await use_cases.persons.page(ListPersons(gallery, cursor, limit))
    return await respond(
        lambda: {
            "persons": [
                {"person_id": row.person_id, "entries": row.entries, "cameras": row.cameras} for row in page.persons
            ],
            "next_cursor": page.next_after,
        },
        len(page.persons),
    )


@router.delete("", summary="Erase a person", responses={200: {"model": ErasureReceipt}, **problems(404, 503, 507)})
async def erase_person(
    gallery: GalleryPath, person_id: PersonQuery, use_cases: UseCasesDep, caller: EraseCaller
) -> Response:
    """Erases every entry of the person in this gallery. The response is the receipt."""
    erasure = await use_cases.persons.erase(ErasePerson(caller, gallery, person_id))
    return JsonResponse({**receipt_view(gallery, erasure), "person_id": person_id})
