"""Form fields and query parameters: text, read by one strict grammar as the value that JSON would bring."""

import re
from collections import Counter
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from fastapi import Request
from pydantic import BaseModel

from service.api.parsing.json_text import parse_json
from service.core.errors import InvalidRequest

_INTEGER = re.compile(r"-?[0-9]{1,19}")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_MOST_VALUES = 8192  # of the JSON of an option
_SHOWN = 64  # characters of a name that a client sent
_TWICE = "it was given more than once"


def read_bool(text: str) -> bool:
    """Raises ValueError for anything but `true` and `false`, also as Python's generated clients spell them."""
    if text not in ("true", "false", "True", "False"):
        raise ValueError("give true or false")
    return text in ("true", "True")


def read_int(text: str) -> int:
    """Raises ValueError for anything but decimal digits, with a minus sign in front or none."""
    if not _INTEGER.fullmatch(text):
        raise ValueError("give an integer in decimal digits")
    return int(text)


def read_float(text: str) -> float:
    """Raises ValueError for anything but a decimal number, with an exponent or none."""
    if not _NUMBER.fullmatch(text):
        raise ValueError("give a decimal number")
    return float(text)


def read_json(text: str) -> Any:
    """Raises ValueError, or BodyTooLarge for more values than any option has."""
    try:
        return parse_json(text, _MOST_VALUES, "the text")
    except InvalidRequest as error:
        raise ValueError(f"in a form or a query this is JSON text ({error})") from None


_SCALARS = {bool: read_bool, int: read_int, float: read_float}


def from_text(model: type[BaseModel], texts: Mapping[str, Any]) -> dict[str, Any]:
    """Members of a model, each read as the type that the model gives it. A name that came twice has a list of texts.

    Members that the model does not know stay as they are. Raises InvalidRequest naming each wrong one.
    """
    kinds = {field.alias or name: _kinds(field.annotation) for name, field in model.model_fields.items()}
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


def _value(kinds: set[type], text: str | list[str]) -> Any:
    if list in kinds:
        return text if isinstance(text, list) else [text]
    if isinstance(text, list):
        raise ValueError(_TWICE)
    for kind, read in _SCALARS.items():
        if kind in kinds:
            return read(text)
    return read_json(text) if any(issubclass(kind, (dict, BaseModel)) for kind in kinds) else text


def _kinds(annotation: Any) -> set[type]:
    """The types of which a value may be one: those of a union, without what they hold."""
    origin = get_origin(annotation)
    if isinstance(annotation, type) and origin is None:
        return {annotation}
    if isinstance(origin, type) and issubclass(origin, (dict, list)):
        return {origin}
    return {kind for part in get_args(annotation) for kind in _kinds(part)}


async def refuse_unknown_query(request: Request) -> None:
    """Raises InvalidRequest for query parameters that the OpenAPI document does not name, or that came twice.

    A call that takes a form takes its options in the query as well. There the model of the options refuses what it does
    not know.
    """
    if not request.query_params:
        return
    call = _documented(request)
    if "multipart/form-data" in call.get("requestBody", {}).get("content", {}):
        return
    known = [parameter["name"] for parameter in call.get("parameters", ()) if parameter["in"] == "query"]
    times = Counter(name for name, _ in request.query_params.multi_items())
    problems = [
        {"at": f"query.{name[:_SHOWN]}", "problem": _TWICE if name in known else unknown(name, known)}
        for name, count in times.items()
        if name not in known or count > 1
    ]
    if problems:
        raise InvalidRequest(f"{problems[0]['at']}: {problems[0]['problem']}", problems[:20])


def _documented(request: Request) -> dict[str, Any]:
    """What the OpenAPI document says of the call; empty where it does not name it."""
    paths: dict[str, Any] = request.app.openapi()["paths"]
    item = paths.get(request.scope["route"].path_format, {})
    call: dict[str, Any] = item.get("get" if request.method == "HEAD" else request.method.lower(), {})
    return call


def unknown(name: str, known: list[str]) -> str:
    """What to say of a name that is not known, among those that are."""
    if not known:
        return "it is not known; this call takes none"
    nearest = get_close_matches(name[:_SHOWN], known, 1)
    guess = f"did you mean {nearest[0]}? " if nearest else ""
    return f"it is not known; {guess}known are {', '.join(known)}"
