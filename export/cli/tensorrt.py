"""`pan-export tensorrt`."""

from pathlib import Path
from typing import Annotated

import typer

from bundle import RTX_CAPABILITIES, TURING
from export.cli.common import AsJson, Crops, Data, Gate, Images, Ranked, errors, measurement_settings, print_json
from export.cli.tables import built_as_json, show_built
from export.tensorrt import BuildSettings, export_tensorrt
from export.tensorrt.build import PRECISIONS, HardwareCompatibility, parse_batch_profile, parse_engine_precision
from export.tensorrt.library import LibraryName

MIB = 1 << 20


def tensorrt(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle that `pan-export onnx` wrote.")],
    precision: Annotated[str, typer.Option(help=f"{', '.join(PRECISIONS)}; fp32 and fp16 are accepted.")] = "float16",
    batch: Annotated[
        str, typer.Option(help="MIN:OPT:MAX: the smallest and largest batch, and the one to optimise for.")
    ] = "1:8:64",
    library: Annotated[
        LibraryName | None, typer.Option(help="Default: tensorrt if it is installed, else tensorrt_rtx.")
    ] = None,
    workspace: Annotated[int | None, typer.Option(min=1, help="MiB of scratch memory that a kernel may use.")] = None,
    hardware_compatibility: Annotated[
        HardwareCompatibility, typer.Option(help="TensorRT: other GPUs that the engine must run on.")
    ] = "none",
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="TensorRT: later versions may load the engine.")
    ] = False,
    compute_capability: Annotated[
        str | None,
        typer.Option(
            help=f"TensorRT-RTX: the only target, of {', '.join(RTX_CAPABILITIES)}. Default: all of them but {TURING}."
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

    If no GPU here can run the engine, it is added as unverified: a service verifies it on its GPU before use.
    """
    settings = BuildSettings(
        batch=parse_batch_profile(batch),
        workspace=workspace and workspace * MIB,
        version_compatible=version_compatible,
        hardware_compatibility=hardware_compatibility,
        compute_capability=compute_capability,
    )
    measuring = measurement_settings(data, images, ranked, calibration, gate)
    with errors.status("loading the library") as status:
        built = export_tensorrt(
            bundle,
            parse_engine_precision(precision),
            settings,
            library=library,
            measuring=measuring,
            overwrite=overwrite,
            step=status.update,
        )
    if as_json:
        print_json(built_as_json(built))
    else:
        show_built(bundle, built)
