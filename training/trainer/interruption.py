"""Interruption of a run: the first SIGINT or SIGTERM requests a stop, the second one ends the process."""

import signal
from types import FrameType, TracebackType
from typing import Any, Self

from bundle import PanError


class Stopped(PanError):
    """The run was interrupted; its state is saved."""

    code = "stopped"


class StopRequest:
    """Context manager; `requested` is True after a signal, and the run stops after the current iteration."""

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
