"""A function in a process of its own: what crashes there, in whichever library, ends that process and nothing else."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from export.errors import ExportError

STOP_TIMEOUT = 60  # seconds for a process that was told to stop


def run_in_process(function: Callable[..., None], *arguments: Any, emit: Callable[[Any], None]) -> None:
    """Run `function(*arguments, emit)` elsewhere and hand on all that it tells.

    Raises ExportError where the process ends before the function does.
    """
    # forked from a server that has imported the package and run nothing: quick, and no threads are copied
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
        ours.close()  # which tells the process to stop, if it still runs
        process.join(STOP_TIMEOUT)
        process.kill()


def _child_main(pipe: Connection, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, _on_interrupt)
    threading.Thread(target=_exit_with_parent, args=(pipe,), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):  # the parent was interrupted too, or is gone
        function(*arguments, pipe.send)
        pipe.send(None)


def _on_interrupt(number: int, _frame: object) -> None:
    """Ctrl-C comes twice, from the terminal and through the parent; the second must not cut the tidying short."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _exit_with_parent(pipe: Connection) -> None:
    """A parent that is killed must not leave somebody behind who writes where its successor writes."""
    with contextlib.suppress(EOFError, OSError):
        pipe.recv()
    os.kill(os.getpid(), signal.SIGINT)


def _describe_exit(status: int | None) -> str:
    if status is not None and status < 0:
        return f"was ended by {signal.Signals(-status).name}; it may have run out of memory or met a library's bug"
    return f"ended early with status {status}"
