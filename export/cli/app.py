"""The commands of `pan-export`, and how their errors end the process."""

import sys

import typer

from bundle import PanError
from export.cli.batch import batch
from export.cli.common import errors
from export.cli.diff import diff
from export.cli.onnx import onnx
from export.cli.tensorrt import tensorrt
from export.cli.verify import verify

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn checkpoints into bundles that the service runs. Every engine is compared with PyTorch first.",
)
for command in (onnx, tensorrt, batch, verify, diff):
    app.command()(command)


def run_app() -> None:
    """Run the command line. An expected error prints one line to stderr and exits with 1; Ctrl-C exits with 130."""
    try:
        app()
    except PanError as error:
        errors.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(1)
