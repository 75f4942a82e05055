"""`pan-export onnx`."""

from pathlib import Path
from typing import Annotated

import typer

from export.bundles import TARGETS, Reduction, export_checkpoint, parse_target
from export.cli.common import AsJson, Crops, Data, Gate, Images, Ranked, errors, measurement_settings, print_json
from export.cli.tables import exported_as_json, show_exported
from export.errors import ParityError
from export.onnx import OPSET


def onnx(
    checkpoint: Annotated[Path, typer.Argument(help="A .safetensors checkpoint or the folder of a run.")],
    out: Annotated[Path, typer.Argument(help="Bundle folder to write.")],
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help=f"An engine to make besides onnx:float32: {', '.join(TARGETS)}. OpenVINO reads the ONNX files. "
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
        typer.Option(min=1, help="Dimensions of a descriptor. Fits a PCA projection to training crops of --data."),
    ] = None,
    whiten: Annotated[
        bool, typer.Option("--whiten", help="Whiten the projection. The printed table shows the accuracy of both.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Add the graph of part masks and compatibility maps.")
    ] = False,
    opset: Annotated[int, typer.Option(min=18, help="ONNX operator set.")] = OPSET,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing bundle.")] = False,
    as_json: AsJson = False,
) -> None:
    """Export a checkpoint to ONNX, compare every engine with PyTorch, and write the bundle of those that pass.

    If float32 fails, nothing is written. If another engine fails, it is left out and the exit status is 1.
    """
    targets = list(map(parse_target, engine or ()))
    measuring = measurement_settings(data, images, ranked, calibration, gate)
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
        print_json(exported_as_json(exported))
    else:
        show_exported(exported)
    if exported.refused:
        raise ParityError(f"left out of the bundle: {', '.join(exported.refused)}")
