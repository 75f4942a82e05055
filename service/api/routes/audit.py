"""/v1/audit: read the audit log."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BeforeValidator

from pan_reid.schemas import AuditPage, Identifier, Time
from service.api.auth import AdminCaller
from service.api.dependencies import Limit, UseCasesDep
from service.api.mapping import audit_view, optional_micros
from service.api.openapi import problems
from service.api.parsing.form_values import read_int
from service.api.responses import respond
from service.galleries.commands import ListAudit

router = APIRouter(prefix="/v1/audit", tags=["audit"])

_MAX_ID = 2**63 - 1
Cursor = Annotated[
    int, BeforeValidator(read_int), Query(ge=1, le=_MAX_ID, description="`next_cursor` of the previous page")
]
CallerFilter = Annotated[Identifier, Query(description="name of the key, or address of a caller without a key")]


@router.get("", summary="List the audit log", responses={200: {"model": AuditPage}, **problems(503)})
async def list_audit(
    use_cases: UseCasesDep,
    _: AdminCaller,
    cursor: Cursor = _MAX_ID,
    limit: Limit = 100,
    since: Annotated[Time | None, Query(description="only records of this time or later")] = None,
    until: Annotated[Time | None, Query(description="only records before this time")] = None,
    caller: CallerFilter | None = None,
    gallery: Identifier | None = None,
    action: Identifier | None = None,
) -> Response:
    """A page of the audit log, newest first: searches, comparisons, changes, exports, and refused calls, by caller.

    All filters apply together. Records stay after the deletion of their gallery.
    """
    page = await use_cases.audit.page(
        ListAudit(cursor, limit, optional_micros(since), optional_micros(until), caller, gallery, action)
    )
    return await respond(lambda: audit_view(page), len(page.records))
