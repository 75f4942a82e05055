"""`pan-reid`: call a running service from the command line."""

import os
from typing import Annotated

import typer

from pan_reid.cli import audit, compare, enrol, galleries, search, transfer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Enrol and search people by image.")
app.command()(enrol.enrol)
app.command()(search.search)
app.command()(compare.compare)
app.add_typer(galleries.app, name="galleries")
app.command()(galleries.persons)
app.command()(galleries.erase)
app.command()(audit.audit)
app.command()(transfer.export)
app.command("import")(transfer.import_)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"pan-reid {version('pan-reid-client')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Enrol and search people by image in a running service."""


def main() -> None:
    """Entry point of `pan-reid`."""
    os.umask(0o077)  # exports are personal data
    app()
