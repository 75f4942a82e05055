"""Logs as one JSON object a line on stderr."""

import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import orjson

from service.core.choices import LogLevel

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """Time, level, logger, message, then whatever the call gave as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
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
    """Send every logger's lines to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class Throttled:
    """A message that is logged once a second at most, with the number of times that it was left out since."""

    def __init__(self, log: logging.Logger, level: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._level = level
        self._clock = clock
        self._next = -float("inf")
        self._left_out = 0

    def __call__(self, message: str, **extra: object) -> None:
        """Log it, or count it."""
        now = self._clock()
        if now < self._next:
            self._left_out += 1
            return
        self._log.log(self._level, message, extra={**extra, "left_out": self._left_out})
        self._next = now + 1.0
        self._left_out = 0
