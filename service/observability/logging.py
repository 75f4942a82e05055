"""Logging to stderr, one JSON object per line."""

import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import orjson

from service.core.choices import LogLevel

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """Formats the time, level, logger and message of a record, then the fields of `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as one line of JSON."""
        line = {
            "at": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def log_to_stderr(level: LogLevel) -> None:
    """Configure the root logger to write JSON lines to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class Throttled:
    """Logs a message at most once a second, with the number of messages that were suppressed since the last one."""

    def __init__(self, log: logging.Logger, level: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._level = level
        self._clock = clock
        self._next = -float("inf")
        self._suppressed = 0

    def __call__(self, message: str, **extra: object) -> None:
        """Log the message, or count it as suppressed."""
        now = self._clock()
        if now < self._next:
            self._suppressed += 1
            return
        self._log.log(self._level, message, extra={**extra, "left_out": self._suppressed})
        self._next = now + 1.0
        self._suppressed = 0
