"""Form fields and query parameters: texts, parsed by one strict grammar to the values that JSON would give."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from service.api.parsing.json_text import parse_json
from service.core.errors import InvalidRequest

GIVEN_TWICE = "it was given more than once"
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_MAX_VALUES = 8192  # of the JSON of one option
_MAX_SHOWN = 64  # characters of a name that a client sent


def read_bool(text: str) -> bool:
    """Accepts `true` and `false`, and Python's spelling as generated clients use it. Raises ValueError."""
    if text not in ("true", "false", "True", "False"):
        raise ValueError("give true or false")
    return text in ("true", "True")


def read_int(text: str) -> int:
    """Accepts decimal digits, with or without a minus sign. Raises ValueError."""
    if not _INTEGER.fullmatch(text):
        raise ValueError("give an integer in decimal digits")
    return int(text)


def read_float(text: str) -> float:
    """Accepts a decimal number, with or without an exponent. Raises ValueError."""
    if not _NUMBER.fullmatch(text):
        raise ValueError("give a decimal number")
    return float(text)


def read_json(text: str) -> Any:
    """Accepts JSON. Raises ValueError, or BodyTooLarge for more values than any option has."""
    try:
        return parse_json(text, _MAX_VALUES, "the text")
    except InvalidRequest as error:
        raise ValueError(f"in a form or a query this is JSON text ({error})") from None


_SCALARS = {bool: read_bool, int: read_int, float: read_float}


def from_text(model: type[BaseModel], texts: Mapping[str, Any]) -> dict[str, Any]:
    """Members of a model, each parsed as the type of its field. A name that was given twice has a list of texts.

    Members that the model does not have stay as they are. Raises InvalidRequest, which names each wrong member.
    """
    kinds = {field.alias or name: _types(field.annotation) for name, field in model.model_fields.items()}
    values: dict[str, Any] = {}
    problems = []
    for name, text in texts.items():
        try:
            values[name] = _value(kinds[name], text) if name in kinds else text
        except ValueError as error:
            problems.append({"at": name, "problem": str(error)})
    if problems:
        raise InvalidRequest(f"{problems[0]['at']}: {problems[0]['problem']}", problems)
    return values


def unknown(name: str, known: list[str]) -> str:
    """The error message for an unknown name, with the nearest known one."""
    if not known:
        return "it is not known; this call has no parameters"
    nearest = get_close_matches(name[:_MAX_SHOWN], known, 1)
    guess = f"did you mean {nearest[0]}? " if nearest else ""
    return f"it is not known; {guess}known are {', '.join(known)}"


def _value(types: set[type], text: str | list[str]) -> Any:
    if list in types:
        return text if isinstance(text, list) else [text]
    if isinstance(text, list):
        raise ValueError(GIVEN_TWICE)
    for scalar, read in _SCALARS.items():
        if scalar in types:
            return read(text)
    return read_json(text) if any(issubclass(one, (dict, BaseModel)) for one in types) else text


def _types(annotation: Any) -> set[type]:
    """The types that a value may have: the members of a union, without the types of their items."""
    origin = get_origin(annotation)
    if isinstance(annotation, type) and origin is None:
        return {annotation}
    if isinstance(origin, type) and issubclass(origin, (dict, list)):
        return {origin}
    return {one for part in get_args(annotation) for one in _types(part)}
