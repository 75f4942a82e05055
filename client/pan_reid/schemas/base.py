"""Base classes of requests and responses, common types, and errors."""

import re
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from pan_reid.schemas.times import parse_time

ATTRIBUTES_MAX = 32

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"  # needs no quoting in a path


def _gallery_name(name: str) -> str:
    if not re.fullmatch(_NAME, name):
        raise PydanticCustomError(
            "gallery_name",
            "a name has 1 to 64 letters, digits, dots, dashes and underscores (A-Z, a-z, 0-9, . - _), and begins with "
            "a letter or digit",
        )
    return name


GalleryName = Annotated[str, AfterValidator(_gallery_name), WithJsonSchema({"type": "string", "pattern": _NAME})]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
Scalar = Annotated[str, StringConstraints(max_length=512)] | bool | int | float | None
Attributes = dict[Identifier, Scalar]

Time = Annotated[AwareDatetime, BeforeValidator(parse_time)]


class Request(BaseModel):
    """Refuses unknown members and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)
    max_values: ClassVar[int] = 200  # at any depth; the service counts them before validation


class Response(BaseModel):
    """Later releases may add members. A client ignores members that it does not know."""

    model_config = ConfigDict(frozen=True)


class ItemError(Response):
    """The error of one item of a request. Other items are not affected."""

    code: str
    detail: str


class Problem(Response):
    """An error response (RFC 9457). `code` is stable, for programs; `detail` is a text for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[dict[str, Any]] | None = None

    @field_validator("status")
    @classmethod
    def _an_error(cls, status: int) -> int:
        if status < 400:
            raise ValueError("a problem has a status of 400 or more")
        return status
