"""Times as the database keeps them: microseconds since 1970, UTC, that can become RFC 3339 text again."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

EARLIEST = -62_135_596_800_000_000  # microseconds since 1970: the beginning of year 1, UTC
LATEST = 253_402_300_799_999_999  # the end of year 9999, UTC


def to_micros(at: datetime) -> int:
    """An aware time as microseconds since 1970, exactly."""
    return (at - _EPOCH) // _MICROSECOND


def from_micros(microseconds: int) -> datetime:
    """Microseconds since 1970 as a time in UTC. What is out of range becomes the nearest time there is."""
    return _EPOCH + min(max(microseconds, EARLIEST), LATEST) * _MICROSECOND
