"""Output, error handling and options that the commands of `pan-serve` share.

The commands import their dependencies inside the functions, so that `--help` is fast.
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec

import typer
from rich.console import Console

P = ParamSpec("P")

Data = Annotated[Path, typer.Option(envvar="PAN_DATA", help="Data folder of the service.")]

out = Console()
err = Console(stderr=True)


def handle_errors(command: Callable[P, None]) -> Callable[P, None]:
    """End a command that raises a PanError or PanReidError with its message and status 1, without a traceback."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except Exception as error:
            from bundle import PanError
            from pan_reid import PanReidError

            if not isinstance(error, PanError | PanReidError):
                raise
            print_error(f"pan-serve: {error}")
            raise typer.Exit(1) from None

    return run


def print_error(message: str) -> None:
    """Print a line to stderr, in red on a terminal."""
    err.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
