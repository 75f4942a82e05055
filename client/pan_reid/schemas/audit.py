"""The audit log."""

from datetime import datetime

from pydantic import Field

from pan_reid.schemas.base import Response


class AuditRecord(Response):
    """An action of a caller."""

    id: int
    at: datetime
    caller: str = Field(
        description="name of the key; without a key, the address of the caller or a name in parentheses"
    )
    action: str = Field(description="such as search, compare, enrol, image, erase-person, export or refused")
    gallery: str | None = Field(description="null: the action concerns no gallery")
    count: int = Field(description="number of crops or entries, or of refused calls")
    detail: str | None = Field(description="name of a created or revoked key, or the reason of a refusal")


class AuditPage(Response):
    records: list[AuditRecord]
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last page")
