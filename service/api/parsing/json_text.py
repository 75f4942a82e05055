"""JSON from outside: parsed within a bound on its values, whichever way it came."""

from typing import Any

import orjson

from service.core.errors import BodyTooLarge, InvalidRequest

VALUES_PER_ENTRY = 4096  # a vector as numbers, and what is known of its crop
VALUES_PER_CROP = 1024  # the metadata of a crop, or a box: what a form field holds for each picture


def parse_json(text: bytes | str, max_values: int, what: str) -> Any:
    """The value of a JSON text; `what` names the text in messages.

    The parser holds Python's lock, and a megabyte of brackets becomes sixty of objects, so the values are counted
    first: commas and opening brackets, those inside of strings as well. Raises BodyTooLarge or InvalidRequest.
    """
    data = text.encode() if isinstance(text, str) else text
    if data.count(b",") + data.count(b"[") + data.count(b"{") > max_values:
        raise BodyTooLarge(
            f"{what} has more than {max_values:,} values; send less at a time, vectors as base64, or pictures as "
            "multipart"
        )
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"{what} is not JSON: {error}") from None


def require_few(value: Any, max_values: int) -> None:
    """Raises InvalidRequest where a parsed value holds more values than `max_values`, at any depth.

    Validation keeps an error of several kilobytes for each wrong value, so it must not see a million of them.
    """
    left, count = [value], 0
    while left:
        one = left.pop()
        if isinstance(one, dict | list):
            count += len(one)
            if count > max_values:
                raise InvalidRequest(f"more than {max_values:,} values are there besides pictures and vectors")
            left.extend(one.values() if isinstance(one, dict) else one)
