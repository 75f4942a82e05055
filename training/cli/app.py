"""The commands of `pan-train`, and how their errors end the process."""

import os
import sys

import typer

from bundle import PanError
from training.cli.ablate import ablate
from training.cli.common import errors
from training.cli.data import data_app
from training.cli.evaluate import evaluate
from training.cli.inspect import inspect
from training.cli.report import report
from training.cli.run import resume, run
from training.cli.settings import CommandWithSettings, settings
from training.cli.synth import synth
from training.trainer.interruption import Stopped

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Train and evaluate PAN."
)
app.command(cls=CommandWithSettings)(run)
for command in (resume, settings, evaluate, report, ablate, inspect, synth):
    app.command()(command)
app.add_typer(data_app, name="data")


def run_app() -> None:
    """Run the command line. An expected error prints one line to stderr and exits with 1; Ctrl-C exits with 130."""
    rank = os.environ.get("RANK", "0")  # torchrun sets it
    try:
        app()
    except Stopped as stop:
        if rank == "0":
            errors.print(str(stop), markup=False, soft_wrap=True)
        sys.exit(130)
    except PanError as error:
        whose = f" in process {rank}" if "RANK" in os.environ else ""
        errors.print(f"error{whose}: {error}", markup=False, soft_wrap=True)
        sys.exit(1)
