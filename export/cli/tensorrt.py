"""`pan-export tensorrt`: what the user types, and what is printed."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bundle import RTX_CAPABILITIES, RTX_DEFAULT_CAPABILITIES, TURING, Precision
from export.bundles.targets import MeasurementSettings
from export.cli.options import AsJson, Crops, Data, Gate, Images, Ranked
from export.errors import BuildError
from export.parity.agreement import Agreement, format_cosine
from export.parity.gates import parse_gates
from export.tensorrt.build import BuildSettings, HardwareCompatibility, parse_batch_profile
from export.tensorrt.export import BuiltEngine, export_tensorrt
from export.tensorrt.library import LibraryName
from training.precision import full_precision_name

PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")
MIB = 1 << 20


def tensorrt(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle that `pan-export onnx` wrote.")],
    precision: Annotated[str, typer.Option(help=f"{', '.join(PRECISIONS)}; fp32 and fp16 are accepted.")] = "float16",
    batch: Annotated[str, typer.Option(help="MIN:OPT:MAX, the batch sizes it takes and the one it is fastest at.")] = (
        "1:8:64"
    ),
    library: Annotated[
        LibraryName | None, typer.Option(help="Without it: tensorrt if installed, else tensorrt_rtx.")
    ] = None,
    workspace: Annotated[int | None, typer.Option(min=1, help="MiB of scratch memory that a kernel may use.")] = None,
    hardware_compatibility: Annotated[
        HardwareCompatibility, typer.Option(help="TensorRT: on which other GPUs the engine is to run as well.")
    ] = "none",
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="TensorRT: later versions may load the engine.")
    ] = False,
    compute_capability: Annotated[
        str | None,
        typer.Option(
            help=f"TensorRT-RTX: the one target, of {', '.join(RTX_CAPABILITIES)}; without it all of them but {TURING}."
        ),
    ] = None,
    data: Data = None,
    images: Images = 64,
    ranked: Ranked = 2000,
    calibration: Crops = 128,
    gate: Gate = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the engine of the same target.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compile a bundle's network to a TensorRT engine and add it to the bundle.

    Where no GPU can run the engine it is added all the same, marked unverified: a service verifies it on its GPU first.
    """
    settings = BuildSettings(
        batch=parse_batch_profile(batch),
        workspace=workspace and workspace * MIB,
        version_compatible=version_compatible,
        hardware_compatibility=hardware_compatibility,
        compute_capability=compute_capability,
    )
    gates = parse_gates(gate or ())
    measuring = MeasurementSettings(data=data, images=images, ranked=ranked, calibration=calibration, gates=gates)
    with Console(stderr=True, highlight=False).status("loading the library") as status:
        built = export_tensorrt(
            bundle,
            parse_precision(precision),
            settings,
            library=library,
            measuring=measuring,
            overwrite=overwrite,
            step=status.update,
        )
    if as_json:
        print(json.dumps(_as_json(built)))
    else:
        _show(bundle, built)


def parse_precision(text: str) -> Precision:
    """`fp16` -> `float16`. Raises BuildError."""
    for precision in PRECISIONS:
        if precision == full_precision_name(text):
            return precision
    raise BuildError(f"--precision {text!r} is not one of {', '.join(PRECISIONS)}")


def _as_json(built: BuiltEngine) -> dict[str, object]:
    return {
        "library": built.library,
        "sidecar": json.loads(built.sidecar.model_dump_json()),
        "typed_graph": _cosines(built.graph.agreement),
        "int8_blocks_in_float": built.graph.float_blocks,
        "engine": built.agreement and _cosines(built.agreement),
        "unverified": built.unverified,
    }


def _cosines(agreement: Agreement) -> dict[str, object]:
    return {
        "data": agreement.data,
        "images": agreement.images,
        "cosine_min": agreement.cosine_min,
        "cosine_mean": agreement.cosine_mean,
        "consistency_min": agreement.consistency,
        "mAP_difference": agreement.mAP_difference,
    }


def _show(bundle: Path, built: BuiltEngine) -> None:
    entry = built.entry
    batch, target = entry.batch, entry.built_for
    assert target is not None  # every engine has a target
    graph, blocks = built.graph.agreement, built.graph.float_blocks
    runs_on = target.gpu or (f"compute capability {target.compute_capability}" if target.compute_capability else None)
    rows = {
        "built by": f"{built.library} in {built.sidecar.build_seconds:.1f} s",
        "runs on": runs_on or f"RTX cards of compute capability {', '.join(RTX_DEFAULT_CAPABILITIES)}",
        "precision": entry.precision + (f", {blocks} residual blocks in float16" if blocks else ""),
        "batch": f"{batch.min} to {batch.max}, fastest at {batch.opt}",
        "measured on": f"{graph.data}: {graph.images} crops, against the bundle's float32 file",
        "typed graph, ONNX Runtime": _format(graph),
        "engine": _format(built.agreement) if built.agreement else f"UNVERIFIED: {built.unverified}",
    }
    table = Table(title=f"{entry.name}, {entry.bytes / 1e6:.1f} MB", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
    print(f"added to {bundle}: {entry.label}, sidecar {entry.name}.json")


def _format(agreement: Agreement) -> str:
    return f"cosine min {format_cosine(agreement.cosine_min)}, mean {format_cosine(agreement.cosine_mean)}"
