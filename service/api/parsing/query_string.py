"""Refuses query parameters that a call does not have."""

from collections import Counter
from typing import Any

from fastapi import Request

from service.api.parsing.form_values import GIVEN_TWICE, unknown
from service.core.errors import InvalidRequest

_MAX_SHOWN = 64  # characters of a name that a client sent
_MAX_PROBLEMS = 20


async def refuse_unknown_query(request: Request) -> None:
    """Raises InvalidRequest for query parameters that the OpenAPI document does not have, or that were given twice.

    A call that accepts a form also accepts its options in the query. There the model of the options refuses unknown
    names.
    """
    if not request.query_params:
        return
    call = _documented_call(request)
    if "multipart/form-data" in call.get("requestBody", {}).get("content", {}):
        return
    known = [parameter["name"] for parameter in call.get("parameters", ()) if parameter["in"] == "query"]
    counts = Counter(name for name, _ in request.query_params.multi_items())
    problems = [
        {"at": f"query.{name[:_MAX_SHOWN]}", "problem": GIVEN_TWICE if name in known else unknown(name, known)}
        for name, count in counts.items()
        if name not in known or count > 1
    ]
    if problems:
        raise InvalidRequest(f"{problems[0]['at']}: {problems[0]['problem']}", problems[:_MAX_PROBLEMS])


def _documented_call(request: Request) -> dict[str, Any]:
    """The call in the OpenAPI document; empty if it is not documented."""
    paths: dict[str, Any] = request.app.openapi()["paths"]
    item = paths.get(request.scope["route"].path_format, {})
    call: dict[str, Any] = item.get("get" if request.method == "HEAD" else request.method.lower(), {})
    return call
