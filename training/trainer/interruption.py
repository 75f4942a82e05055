"""Ending a run from outside: the first SIGINT or SIGTERM is a request, the second one ends the process."""

import signal
from types import FrameType, TracebackType
from typing import Any, Self

from bundle import PanError


class Stopped(PanError):
    """The run was asked to stop; its state is on disk."""

    code = "stopped"


class StopRequest:
    """Context manager; `asked` is True once a signal has come, and the run ends itself after its iteration."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {
            int(number): signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.requested = True
        signal.signal(number, self._before[number])
