"""What the commands share: their common options, error handling, connection, and parsing of values."""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer
from rich.console import Console

if TYPE_CHECKING:
    from pan_reid import Client

P = ParamSpec("P")

Url = Annotated[str, typer.Option(help="Of a running service.")]
KeyFile = Annotated[
    Path | None, typer.Option("--api-key-file", help="Holds the API key; PAN_API_KEY is read if left out.")
]
Gallery = Annotated[str, typer.Option("--gallery", help="Name of the gallery.")]
GalleryName = Annotated[str, typer.Argument(help="Name of the gallery.")]
Json = Annotated[bool, typer.Option("--json", help="Print the response of the service as JSON.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]

LOCAL = "http://127.0.0.1:8000"

out = Console()
err = Console(stderr=True)


def handle_errors(command: Callable[P, None]) -> Callable[P, None]:
    """End a command that raises one of this package's errors with its message and status 1, without a traceback."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except Exception as error:
            from pan_reid import PanReidError

            if not isinstance(error, PanReidError):
                raise
            print_error(f"pan-reid: {error}")
            raise typer.Exit(1) from None

    return run


def print_error(message: str) -> None:
    """A line on stderr, red on a terminal."""
    err.print(message, style="red", markup=False, highlight=False, soft_wrap=True)


def print_line(message: str) -> None:
    """A line on stdout, as it is."""
    out.print(message, markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """A response, or a list of them, as JSON on stdout."""
    from pydantic_core import to_json

    sys.stdout.write(to_json(value, exclude_none=True).decode() + "\n")


def connect(url: str, key_file: Path | None) -> "Client":
    """A client of a running service. Raises PanReidError for a key that cannot be read."""
    from pan_reid import Client

    return Client(url, api_key=None if key_file is None else read_secret(key_file))


def read_secret(path: Path) -> str:
    """The content of a file, without the line's end. Raises PanReidError."""
    from pan_reid.errors import PanReidError

    try:
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise PanReidError(f"no API key can be read from {path} ({error})") from None
    if not secret:
        raise PanReidError(f"no API key can be read from {path}: it is empty")
    return secret


def read_images(paths: Sequence[Path]) -> list[bytes]:
    """The bytes of files. Raises BadParameter."""
    try:
        return [path.read_bytes() for path in paths]
    except OSError as error:
        raise typer.BadParameter(str(error)) from None


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


def split_pair(option: str, pair: str) -> tuple[str, str]:
    """NAME=VALUE as its two parts. Raises BadParameter."""
    name, equals, text = pair.partition("=")
    if not equals:
        raise typer.BadParameter(f"{option} {pair}: give NAME=VALUE")
    return name, text


def given(**options: Any) -> dict[str, Any]:
    """The options that are neither None nor empty."""
    return {name: value for name, value in options.items() if value is not None and value != [] and value != {}}
