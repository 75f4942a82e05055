"""`pan-export`: onnx."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bundle import PanError
from export.onnx_bundle import TIMED_BATCH, Exported, export_onnx
from export.onnx_graph import OPSET
from export.parity import MIN_COSINE, in_words

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
errors = Console(stderr=True, highlight=False)


@app.callback()
def commands() -> None:
    """Turn checkpoints into bundles that the service runs; every file is measured against PyTorch first."""


@app.command()
def onnx(
    checkpoint: Annotated[Path, typer.Argument(help="A .safetensors checkpoint or the folder of a run.")],
    out: Annotated[Path, typer.Argument(help="Bundle folder to write.")],
    data: Annotated[
        Path | None, typer.Option(help="Data set whose crops it is measured on; without it, synthetic people.")
    ] = None,
    images: Annotated[int, typer.Option(min=2, help="Crops to measure on.")] = 64,
    min_cosine: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="The least cosine with PyTorch over all crops and batch sizes.")
    ] = MIN_COSINE,
    opset: Annotated[int, typer.Option(min=18, help="ONNX operator set.")] = OPSET,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the bundle that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Export a checkpoint to float32 ONNX, compare it with PyTorch, and write the bundle if it passes."""
    with errors.status("loading the checkpoint") as status:
        exported = export_onnx(
            checkpoint,
            out,
            data=data,
            images=images,
            min_cosine=min_cosine,
            opset=opset,
            overwrite=overwrite,
            step=status.update,
        )
    if as_json:
        print(json.dumps(_as_json(exported)))
    else:
        _show(exported)


def _as_json(exported: Exported) -> dict[str, object]:
    return {
        "bundle": str(exported.out),
        "fingerprint": exported.manifest.model.fingerprint,
        "files": [json.loads(file.model_dump_json()) for file in exported.manifest.files],
        "cosine_by_batch": {
            size: {"min": low, "mean": mean} for size, (low, mean) in exported.agreement.cosine.items()
        },
        "consistency_min": exported.agreement.consistency,
        "cosine_between_crops": exported.agreement.spread,
        "milliseconds_a_crop": {"batch": TIMED_BATCH, **exported.milliseconds},
    }


def _show(exported: Exported) -> None:
    (file,) = exported.manifest.files
    parity, agreement = file.parity, exported.agreement
    assert parity is not None  # an ONNX file without is never written
    table = Table(title=f"{file.name}, {file.bytes / 1e6:.1f} MB", show_header=False)
    rows = {
        "measured on": f"{parity.images} crops of {parity.data}, batches of {', '.join(map(str, parity.batch_sizes))}",
        "cosine with PyTorch": f"min {in_words(parity.cosine_min)}, mean {in_words(parity.cosine_mean)}, "
        f"gate {in_words(parity.gate_cosine_min)}",
        "in any batch and position": f"min cosine {in_words(agreement.consistency)} of a crop with itself",
        "between different crops": f"mean cosine {in_words(agreement.spread)}",
        f"ms a crop, batch {TIMED_BATCH}": ", ".join(f"{name} {ms:.2f}" for name, ms in exported.milliseconds.items()),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
    print(f"wrote {exported.out}, fingerprint {exported.manifest.model.fingerprint}")


def main() -> None:
    """Entry point: an expected error is one line on stderr and exit status 1; Ctrl-C is 130."""
    try:
        app()
    except PanError as error:
        errors.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
