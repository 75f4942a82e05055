"""JSON from clients, parsed within a limit on the number of its values."""

from typing import Any

import orjson

from service.core.errors import BodyTooLarge, InvalidRequest

VALUES_PER_ENTRY = 4096  # a vector as numbers, and the metadata of its crop
VALUES_PER_CROP = 1024  # the metadata of a crop, or a box: the part of a form field for each image


def parse_json(text: bytes | str, max_values: int, what: str) -> Any:
    """The value of a JSON text. `what` names the text in error messages. Raises BodyTooLarge or InvalidRequest.

    The values are counted before parsing: the parser holds the GIL, and turns a megabyte of brackets into sixty
    megabytes of objects. Every comma and opening bracket counts, also inside strings.
    """
    data = text.encode() if isinstance(text, str) else text
    if data.count(b",") + data.count(b"[") + data.count(b"{") > max_values:
        raise BodyTooLarge(
            f"{what} has more than {max_values:,} values; send less in one request, vectors as base64, or images as "
            "multipart"
        )
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"{what} is not JSON: {error}") from None


def require_few_values(value: Any, max_values: int) -> None:
    """Raises InvalidRequest if a parsed value holds more than `max_values` values, at any depth.

    Validation needs several kilobytes for each wrong value, so it must not see a million of them.
    """
    stack, count = [value], 0
    while stack:
        one = stack.pop()
        if isinstance(one, dict | list):
            count += len(one)
            if count > max_values:
                raise InvalidRequest(f"the request has more than {max_values:,} values besides images and vectors")
            stack.extend(one.values() if isinstance(one, dict) else one)
