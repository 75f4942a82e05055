"""Runs a function in a process of its own, so that a crash in a native library ends only that process."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from export.errors import ExportError

STOP_TIMEOUT = 60  # seconds until a process that was asked to stop is killed


def run_in_process(function: Callable[..., None], *arguments: Any, emit: Callable[[Any], None]) -> None:
    """Run `function(*arguments, emit)` in another process and pass each message that it emits to `emit` here.

    Raises ExportError if the process ends before the function returns.
    """
    # a fork server that has only imported the package: starts quickly, and no threads are copied
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    ours, theirs = context.Pipe()
    process = context.Process(target=_child_main, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        while (message := ours.recv()) is not None:
            emit(message)
        process.join()
    except EOFError:
        process.join()
        raise ExportError(f"the process that made it {_describe_exit(process.exitcode)}") from None
    finally:
        ours.close()  # the process stops when the pipe closes
        process.join(STOP_TIMEOUT)
        process.kill()


def _child_main(pipe: Connection, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, _on_interrupt)
    threading.Thread(target=_exit_with_parent, args=(pipe,), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):  # the parent was interrupted too, or has ended
        function(*arguments, pipe.send)
        pipe.send(None)


def _on_interrupt(number: int, _frame: object) -> None:
    """Handle the first Ctrl-C and ignore the second (terminal and parent both send one), so that clean-up completes."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _exit_with_parent(pipe: Connection) -> None:
    """Stop when the parent is killed: a process left behind would write to the same folder as the next run."""
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()
    os.kill(os.getpid(), signal.SIGINT)


def _describe_exit(status: int | None) -> str:
    if status is not None and status < 0:
        return f"was ended by {signal.Signals(-status).name}; it may have run out of memory or met a library's bug"
    return f"ended early with status {status}"
