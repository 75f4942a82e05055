"""Options and the console that several commands of `pan-train` share."""

from typing import Annotated

import typer
from rich.console import Console

errors = Console(stderr=True, highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
