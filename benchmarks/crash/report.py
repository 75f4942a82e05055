"""What the crash benchmarks share: the error of a broken promise, and the end of a command."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from bundle import PanError


class Violation(PanError):
    """The entries, or the index, differ from the acknowledged writes."""

    code = "violation"


def report(play: Callable[[Path, int, int, Console], dict[str, Any]], rounds: int, seed: int, as_json: bool) -> None:
    """Run `play` in a new folder and print its counts. A Violation is printed, and the exit status is then 1."""
    console = Console(stderr=True)
    with TemporaryDirectory() as folder:
        try:
            found = play(Path(folder), rounds, seed, console)
        except Violation as violation:
            console.print(f"error: {violation}", markup=False, soft_wrap=True)
            sys.exit(1)
    print(json.dumps(found) if as_json else "\n".join(f"{name}: {value}" for name, value in found.items()))
