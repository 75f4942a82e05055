"""Validation of request members by the models of the wire contract."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pan_reid import schemas
from service.api.parsing.body import Body
from service.api.parsing.form_values import from_text, unknown
from service.api.parsing.json_text import require_few_values
from service.api.problems import validation_problem
from service.core.errors import InvalidRequest

M = TypeVar("M", bound=schemas.Request)

_MAX_ERRORS = 1000  # with their texts; each needs several kilobytes


def parse(model: type[M], members: Mapping[str, Any]) -> M:
    """Validate members. Raises InvalidRequest, which names each wrong one."""
    require_few_values(members, model.max_values)
    try:
        return model.model_validate(members)
    except ValidationError as error:
        raise _invalid(error, model) from None


def parse_options(model: type[M], body: Body) -> M:
    """Validate the members of a body, some of which are texts. Raises InvalidRequest, which names each wrong one."""
    texts = {name: value for name, value in body.members.items() if name in body.texts}
    return parse(model, {**body.members, **from_text(model, texts)})


def _invalid(error: ValidationError, model: type[BaseModel]) -> InvalidRequest:
    """The errors of pydantic, without the values that were sent."""
    if (count := error.error_count()) > _MAX_ERRORS:
        return InvalidRequest(f"{count:,} members of the request are unknown or wrong")
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return validation_problem({**issue, "msg": _message(issue, model)} for issue in found)


def _message(issue: ErrorDetails, model: type[BaseModel]) -> str:
    name = issue["loc"][-1] if issue["loc"] else ""
    texts = [part for part in issue["loc"] if isinstance(part, str)]
    if issue["type"] == "extra_forbidden" and texts == [name]:  # a member of the model itself
        return unknown(texts[0], [field.alias or known for known, field in model.model_fields.items()])
    return issue["msg"]
