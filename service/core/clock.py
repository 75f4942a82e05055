"""Times as the database stores them: microseconds since 1970-01-01 UTC, within the range of `datetime`."""

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

EARLIEST = -62_135_596_800_000_000  # 0001-01-01T00:00:00Z
LATEST = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z


def now() -> int:
    """The current time in microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000


def to_micros(at: datetime) -> int:
    """Convert a timezone-aware datetime to microseconds, without rounding."""
    return (at - _EPOCH) // _MICROSECOND


def from_micros(microseconds: int) -> datetime:
    """Convert microseconds to a datetime in UTC. Values out of range are clamped to the years 1 to 9999."""
    return _EPOCH + min(max(microseconds, EARLIEST), LATEST) * _MICROSECOND
