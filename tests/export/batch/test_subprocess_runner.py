"""A function in a process of its own: its result, and an error for each way in which it can fail."""

import os
import signal
import threading
from collections.abc import Callable

import pytest

from export.batch.subprocess_runner import run_in_process
from export.errors import ExportError, GraphError

Step = Callable[[str], None]


def _add(a: int, b: int, step: Step) -> int:
    step("adding")
    return a + b


def _crash(step: Step) -> None:
    step("working")
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(step: Step) -> None:
    step("working")
    threading.Event().wait()


def _raise(error: Exception, step: Step) -> None:
    step("working")
    raise error


def test_steps_and_result_arrive() -> None:
    steps: list[str] = []
    assert run_in_process(_add, 1, 2, step=steps.append, timeout=120) == 3
    assert steps == ["adding"]


def test_a_process_that_crashes_raises_or_hangs_is_an_error() -> None:
    def error_of(function: Callable[..., object], *arguments: object, timeout: float = 120) -> str:
        steps: list[str] = []
        with pytest.raises(ExportError) as caught:
            run_in_process(function, *arguments, step=steps.append, timeout=timeout)
        assert steps == ["working"]
        return str(caught.value)

    assert error_of(_crash).startswith("the process that made it was ended by SIGKILL; ")
    assert error_of(_raise, GraphError("no output")) == "no output"
    assert error_of(_raise, ValueError("a bug")) == "ValueError: a bug"
    assert error_of(_hang, timeout=5).startswith("no progress for 5 seconds; set a longer timeout in the plan")
