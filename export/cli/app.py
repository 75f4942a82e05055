"""`pan-export`: onnx, tensorrt, verify, diff, batch."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bundle import PanError
from export.bundles.exporter import export_checkpoint
from export.bundles.projection import Reduction
from export.bundles.targets import TARGETS, MeasurementSettings, parse_target
from export.cli.batch import batch
from export.cli.options import AsJson, Crops, Data, Gate, Images, Ranked
from export.cli.tables import (
    exported_as_json,
    show_departures,
    show_exported,
    show_verdicts,
    verdicts_as_json,
)
from export.cli.tensorrt import tensorrt
from export.errors import ParityError
from export.onnx.diff import compare_graphs, first_departure, input_spec, read_graph
from export.onnx.graph import OPSET
from export.parity.gates import parse_gates
from export.parity.samples import load_samples
from export.verification import verify_bundle

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
errors = Console(stderr=True, highlight=False)
app.command()(batch)
app.command()(tensorrt)


@app.callback()
def commands() -> None:
    """Turn checkpoints into bundles that the service runs; every file is measured against PyTorch first."""


@app.command()
def onnx(
    checkpoint: Annotated[Path, typer.Argument(help="A .safetensors checkpoint or the folder of a run.")],
    out: Annotated[Path, typer.Argument(help="Bundle folder to write.")],
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What to make besides onnx:float32, of {', '.join(TARGETS)}. OpenVINO reads the ONNX files. "
            "May be given several times."
        ),
    ] = None,
    data: Data = None,
    images: Images = 64,
    ranked: Ranked = 2000,
    calibration: Crops = 128,
    gate: Gate = None,
    dim: Annotated[
        int | None,
        typer.Option(min=1, help="Numbers of a descriptor: a projection learnt from training crops of --data."),
    ] = None,
    whiten: Annotated[
        bool, typer.Option("--whiten", help="Whiten the projection; see in the table of sizes whether that helps.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Add the graph of part masks and compatibility maps.")
    ] = False,
    opset: Annotated[int, typer.Option(min=18, help="ONNX operator set.")] = OPSET,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the bundle that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Export a checkpoint to ONNX, compare every engine with PyTorch, and write the bundle of those that pass.

    Where float32 fails nothing is written; where another fails it is left out, and the exit status is 1.
    """
    targets = list(map(parse_target, engine or ()))
    gates = parse_gates(gate or ())
    measuring = MeasurementSettings(data=data, images=images, ranked=ranked, calibration=calibration, gates=gates)
    with errors.status("loading the checkpoint") as status:
        exported = export_checkpoint(
            checkpoint,
            out,
            targets=targets,
            measuring=measuring,
            reduction=Reduction(dim, whiten) if dim else None,
            explain=explain,
            opset=opset,
            overwrite=overwrite,
            step=status.update,
        )
    if as_json:
        print(json.dumps(exported_as_json(exported)))
    else:
        show_exported(exported)
    if exported.refused:
        raise ParityError(f"left out of the bundle: {', '.join(exported.refused)}")


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="Compare with this checkpoint in PyTorch, not with the float32 ONNX file.")
    ] = None,
    data: Data = None,
    images: Images = 64,
    ranked: Ranked = 2000,
    as_json: AsJson = False,
) -> None:
    """Measure every engine of a bundle again, on this machine, against the gates in its manifest."""
    with errors.status("reading the bundle") as status:
        measuring = MeasurementSettings(data=data, images=images, ranked=ranked)
        verdicts = verify_bundle(bundle, checkpoint, measuring, status.update)
    if as_json:
        print(json.dumps(verdicts_as_json(verdicts)))
    else:
        show_verdicts(verdicts)
    if failed := [verdict.entry.label for verdict in verdicts if verdict.problem]:
        raise ParityError(f"failed on this machine: {', '.join(failed)}; export the checkpoint again")


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(help="An .onnx file, a bundle (its float32 file) or a checkpoint.")],
    b: Annotated[Path, typer.Argument(help="The same; its tensors have A's names.")],
    threshold: Annotated[float, typer.Option(min=0, max=1, help="A cosine under this is a departure.")] = 0.999,
    data: Data = None,
    images: Annotated[int, typer.Option(min=1, help="Crops to run through both.")] = 4,
    rows: Annotated[int, typer.Option(min=1, help="Rows of the table.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Compare two graphs of one network tensor by tensor, and name the first tensor of B that differs from A."""
    with errors.status("running both graphs"):
        graph_a, graph_b = read_graph(a), read_graph(b)
        samples = load_samples(data, input_spec(graph_a), max(images, 2), 1)
        departures = compare_graphs(graph_a, graph_b, samples.images_NHW3[:images])
    first = first_departure(departures, threshold)
    if as_json:
        keys = ("tensor", "operator", "cosine", "largest")
        tensors = [{key: getattr(departure, key) for key in keys} for departure in departures]
        print(json.dumps({"first": first and first.tensor, "tensors": tensors}))
        return
    show_departures(departures, first, rows)
    if first:
        print(f"first departure: {first.tensor}, given by {first.operator}, cosine {first.cosine:.6f} < {threshold}")
    else:
        print(f"no tensor departs: every cosine is at least {threshold}")


def run_app() -> None:
    """Entry point: an expected error is one line on stderr and exit status 1; Ctrl-C is 130."""
    try:
        app()
    except PanError as error:
        errors.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(1)
