"""Options, output, error handling and connection that the commands of `pan-reid` share."""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer
from rich.console import Console

if TYPE_CHECKING:
    from pan_reid import Client

P = ParamSpec("P")

Url = Annotated[str, typer.Option(help="Address of the service.")]
KeyFile = Annotated[
    Path | None, typer.Option("--api-key-file", help="File with the API key. Default: the variable PAN_API_KEY.")
]
Gallery = Annotated[str, typer.Option("--gallery", help="Name of the gallery.")]
GalleryName = Annotated[str, typer.Argument(help="Name of the gallery.")]
Json = Annotated[bool, typer.Option("--json", help="Print the response of the service as JSON.")]
Fpr = Annotated[
    float | None,
    typer.Option(help="Decide match or unknown at this false-positive rate, one of those in the bundle's calibration."),
]
Threshold = Annotated[
    float | None, typer.Option(min=-1, max=1, help="Decide match or unknown by this cosine, instead of --fpr.")
]
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
    """Print a line to stderr, in red on a terminal."""
    err.print(message, style="red", markup=False, highlight=False, soft_wrap=True)


def print_line(message: str) -> None:
    """Print a line to stdout, without markup."""
    out.print(message, markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a response, or a list of them, to stdout as JSON."""
    from pydantic_core import to_json

    sys.stdout.write(to_json(value, exclude_none=True).decode() + "\n")


def connect(url: str, key_file: Path | None) -> "Client":
    """A client of the service. Raises PanReidError if the key file cannot be read."""
    from pan_reid import Client

    return Client(url, api_key=None if key_file is None else read_secret(key_file))


def read_secret(path: Path) -> str:
    """The content of a file without surrounding white space. Raises PanReidError."""
    from pan_reid.errors import PanReidError

    try:
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise PanReidError(f"no API key can be read from {path} ({error})") from None
    if not secret:
        raise PanReidError(f"no API key can be read from {path}: it is empty")
    return secret
