"""What part-aware attention costs: PAN_c against its baseline, milliseconds a crop, in PyTorch and in ONNX Runtime.

    python -m benchmarks.pam_cost [--width 1.0] [--batch 8] [--threads 2] [--rounds 9] [--json]

Weights are random: time does not depend on them. The four engines take turns, medians are compared.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from bundle import InputSpec
from export.engines import onnx_embedder
from export.onnx_graph import onnx_graph
from export.samples import synthetic_samples
from export.timing import milliseconds_a_crop
from export.write import save_onnx
from training.embed import Embed, torch_embedder
from training.model import PAN, VARIANTS, BackboneConfig

RUNTIMES = ("PyTorch", "ONNX Runtime")


def main(
    variant: str = "pan_c",
    baseline: str = "baseline",
    width: float = 1.0,
    height_pixels: int = 384,
    width_pixels: int = 128,
    batch: int = 8,
    threads: int = 2,
    rounds: int = 9,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Time two variants on ResNet-50 of a width, interleaved."""
    torch.set_num_threads(threads)
    spec = InputSpec(height=height_pixels, width=width_pixels)
    engines: dict[str, Embed] = {}
    with TemporaryDirectory() as folder:
        for name in (baseline, variant):
            network = PAN(VARIANTS[name].model_copy(update={"backbone": BackboneConfig(width=width)})).eval()
            path = Path(folder) / f"{name}.onnx"
            save_onnx(onnx_graph(network, spec, {}), path)
            engines[f"{name} PyTorch"] = torch_embedder(network, spec)
            engines[f"{name} ONNX Runtime"] = onnx_embedder(path, threads)
        times = milliseconds_a_crop(engines, synthetic_samples(spec, batch).images_NHW3, rounds)
    ratios = {runtime: times[f"{variant} {runtime}"] / times[f"{baseline} {runtime}"] for runtime in RUNTIMES}
    setting = {"backbone": BackboneConfig(width=width).name, "batch": batch, "threads": threads, "rounds": rounds}
    if as_json:
        print(json.dumps({**setting, "milliseconds_a_crop": times, "ratio": ratios}))
        return
    table = Table(title="ms a crop, " + ", ".join(f"{key} {value}" for key, value in setting.items()))
    for column in ("runtime", baseline, variant, "ratio"):
        table.add_column(column, justify="left" if column == "runtime" else "right")
    for runtime in RUNTIMES:
        row = (f"{times[f'{name} {runtime}']:.2f}" for name in (baseline, variant))
        table.add_row(runtime, *row, f"{ratios[runtime]:.3f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
