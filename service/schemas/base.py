"""What requests and answers are made of, and what every failure looks like."""

from typing import Annotated, Any

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, field_validator

ATTRIBUTES_MAX = 32

GalleryName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
Scalar = Annotated[str, StringConstraints(max_length=512)] | bool | int | float | None
Attributes = dict[Identifier, Scalar]


def _from_text(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"in a form this is a JSON text ({error})") from None


OrItsText = BeforeValidator(_from_text)


class Request(BaseModel):
    """Unknown members are refused: a typing error must not become a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Answer(BaseModel):
    """Members may be added in later releases; a client ignores those it does not know."""

    model_config = ConfigDict(frozen=True)


class ItemError(Answer):
    """Why one item of a request failed; the others did not."""

    code: str
    detail: str


class Problem(Answer):
    """RFC 9457. `code` is stable and meant for programs, `detail` for people."""

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
