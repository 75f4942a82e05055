"""Times in the API: RFC 3339 text with a time zone."""

import re
from datetime import UTC, datetime

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def parse_time(value: object) -> datetime:
    """A time in UTC from RFC 3339 text, or from a datetime with a time zone.

    Numbers are refused, because their unit is unknown. Raises ValueError, also for a time outside the years 1 to 9999
    in UTC, which has no RFC 3339 text.
    """
    if isinstance(value, str):
        if not _RFC_3339.fullmatch(value):
            raise ValueError("give a time as RFC 3339 text with a time zone, such as 2024-05-01T08:00:00Z")
        try:
            at = datetime.fromisoformat(value.upper())
        except ValueError as error:
            raise ValueError(f"there is no such time ({error})") from None
    elif isinstance(value, datetime):
        at = value
    else:
        raise ValueError("give a time as text, such as 2024-05-01T08:00:00Z")
    if at.tzinfo is None:
        raise ValueError("the time has no time zone; write it as 2024-05-01T08:00:00Z or 2024-05-01T10:00:00+02:00")
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time lies outside the years 1 to 9999 in UTC") from None
