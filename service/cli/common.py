"""What every command of `pan-serve` has in common: where it writes, how it fails, and where its key comes from.

The modules of the commands import what a command needs when it runs, so that `--help` answers at once.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import typer
from rich.console import Console

P = ParamSpec("P")

out = Console()
err = Console(stderr=True)


def handle_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Our own errors end a command with their message and without a traceback."""

    @wraps(command)
    def tell(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except Exception as error:
            from bundle import PanError
            from pan_reid import PanReidError

            if not isinstance(error, PanError | PanReidError):
                raise
            print_error(f"pan-serve: {error}")
            raise typer.Exit(1) from None

    return tell


def print_error(message: str) -> None:
    """A line on stderr, in red where there are colours."""
    err.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
