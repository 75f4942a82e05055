"""What every command of `pan-serve` has in common: where it writes, how it fails, and where its key comes from.

The modules of the commands import what a command needs when it runs, so that `--help` answers at once.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, time
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer
from rich.console import Console

if TYPE_CHECKING:
    from pan_reid import Client

P = ParamSpec("P")

Url = Annotated[str, typer.Option(help="Of a running service.")]
KeyFile = Annotated[
    Path | None, typer.Option("--api-key-file", help="Holds the API key; PAN_API_KEY is read if left out.")
]

out = Console()
err = Console(stderr=True)


def told(command: Callable[P, None]) -> Callable[P, None]:
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
            complain(f"pan-serve: {error}")
            raise typer.Exit(1) from None

    return tell


def complain(message: str) -> None:
    """A line on stderr, in red where there are colours."""
    err.print(message, style="red", markup=False, highlight=False, soft_wrap=True)


def connect(url: str, key_file: Path | None) -> "Client":
    """A client of a running service. Raises StartupError for a key that cannot be read."""
    from pan_reid import Client

    return Client(url, api_key=None if key_file is None else read_secret(key_file))


def parse_time(text: str) -> str:
    """A time as the API takes it; a date alone is its midnight, UTC. Raises BadParameter."""
    with suppress(ValueError):
        return datetime.combine(date.fromisoformat(text), time(), UTC).isoformat()
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text} is no time; give one like 2024-05-01T08:00:00Z, or a date") from None
    if at.tzinfo is None:
        raise typer.BadParameter(f"{text} has no time zone; for UTC give {text}Z")
    return at.isoformat()


def read_secret(path: Path) -> str:
    """What a file holds, without the line's end. Raises StartupError."""
    from service.core.errors import StartupError

    try:
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"no API key can be read from {path} ({error})") from None
    if not secret:
        raise StartupError(f"no API key can be read from {path}: it is empty")
    return secret
