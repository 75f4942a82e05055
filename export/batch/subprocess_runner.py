"""Runs a function in a process of its own, so that a crash in a native library ends only that process."""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from bundle import PanError
from export.errors import ExportError
from training.callbacks import StepCallback

T = TypeVar("T")


def run_in_process(function: Callable[..., T], *arguments: Any, step: StepCallback, timeout: float) -> T:
    """Return `function(*arguments, step)`, computed in another process; its calls of `step` are repeated here.

    Raises ExportError if the function raises, if its process ends early, or after `timeout` seconds without a step.
    """
    # a fork server that has only imported the package: starts quickly, and no threads are copied
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_worker_main, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        while receiver.poll(timeout):
            kind, content = receiver.recv()
            if kind == "error":
                raise ExportError(content)
            if kind == "result":
                result: T = content
                return result
            step(content)
        raise ExportError(f"no progress for {timeout:g} seconds; set a longer timeout in the plan if this is expected")
    except EOFError:
        process.join()
        raise ExportError(f"the process that made it {_describe_exit(process.exitcode)}") from None
    finally:
        process.kill()
        process.join()


def error_text(error: Exception) -> str:
    """The message of an expected error. For another one: its type as well, and its traceback goes to stderr."""
    if isinstance(error, PanError):
        return str(error)
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"


def _worker_main(sender: Connection, function: Callable[..., object], arguments: Sequence[object]) -> None:
    threading.Thread(target=_interrupt_with_parent, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):  # Ctrl-C, or the parent has ended
        try:
            message = ("result", function(*arguments, lambda text: sender.send(("step", text))))
        except Exception as error:
            message = ("error", error_text(error))
        sender.send(message)


def _interrupt_with_parent() -> None:
    """Stop when the parent is killed: a process left behind would write to the same folder as the next run."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGINT)


def _describe_exit(status: int | None) -> str:
    if status is not None and status < 0:
        return f"was ended by {signal.Signals(-status).name}; a library crashed, or the memory was exhausted"
    return f"ended early with status {status}"
