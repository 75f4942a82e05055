"""`pan-serve`: run the service and maintain its data. `pan-reid` (in client/) is the command that calls a service."""

import logging
import os
import sys

import typer

from service.cli import backup as backup_commands
from service.cli import check as check_commands
from service.cli import config as config_command
from service.cli import galleries as gallery_commands
from service.cli import keys as key_commands
from service.cli import run as run_command
from service.cli.common import handle_errors
from service.cli.environment import EnvironmentCommand

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Run the PAN Re-ID service and maintain its data.")
app.command(cls=EnvironmentCommand, context_settings=EnvironmentCommand.settings)(run_command.run)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(config_command.config)
app.add_typer(key_commands.app, name="key")
app.command()(backup_commands.backup)
app.command()(backup_commands.restore)
app.command()(backup_commands.vacuum)
app.command()(check_commands.check)
app.command("re-embed")(gallery_commands.re_embed)


@app.command()
@handle_errors
def openapi() -> None:
    """Print the OpenAPI document of the API. Needs no running service."""
    import orjson

    from service.api.app import openapi_document

    sys.stdout.write(orjson.dumps(openapi_document(), option=orjson.OPT_INDENT_2).decode() + "\n")


def main() -> None:
    """Entry point of `pan-serve`."""
    logging.captureWarnings(True)
    os.umask(0o077)  # these commands write personal data and keys
    app()
