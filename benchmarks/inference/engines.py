"""Engines on the CPU, in turns: PyTorch eager and compiled, ONNX Runtime, OpenVINO, at the precisions each has.

    python -m benchmarks.inference.engines [--variant pan_c --variant global_bnneck] [--threads 2] [--rounds 7] [--json]

Prints ms per crop (median over the rounds), the speed relative to PyTorch eager and to ONNX Runtime float32 (median of
the ratios within a round), GFLOP/s, and per cent of the peak. The peak is the best large matrix product of the same
precision in PyTorch with the same threads in the same run. `global_bnneck` is ResNet-50 with global pooling. Weights
are random, because time does not depend on them.
"""

import copy
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common.turns import ratio, take_turns
from bundle import InputSpec, Precision
from export.bundles.writer import save_onnx
from export.engines import onnx_embedder, openvino_embedder
from export.onnx.graph import onnx_graph
from export.parity.samples import synthetic_samples
from export.quantisation.qdq import calibrate, quantise
from training.embed import Embed, torch_embedder
from training.experiments.cost import inspect_variant
from training.model import PAN, VARIANTS, BackboneConfig

PEAK_SIZE = 2048
EAGER, FLOAT32 = "PyTorch eager", "ONNX Runtime float32"
PRECISIONS: dict[str, Precision] = {
    EAGER: "float32",
    "PyTorch compiled": "float32",
    FLOAT32: "float32",
    "ONNX Runtime int8": "int8",
    "OpenVINO float32": "float32",
    "OpenVINO bfloat16": "bfloat16",
    "OpenVINO int8": "int8",
}


@dataclass(frozen=True, slots=True)
class Row:
    """Speed of an engine for a network and a batch size."""

    variant: str
    batch: int
    engine: str
    milliseconds: float  # per crop
    times_eager: float  # speed relative to PyTorch eager
    times_float32: float  # speed relative to ONNX Runtime float32
    gflops: float  # GFLOP/s
    per_cent_of_peak: float


def peak_gflops(precision: Precision, seconds: float = 1.0) -> float:
    """Best GFLOP/s of square matrix products in PyTorch within the time limit."""
    shape = (PEAK_SIZE, PEAK_SIZE)
    product: Callable[[], object]
    if precision == "int8":
        integers = [torch.randint(-127, 127, shape, dtype=torch.int8) for _ in range(2)]
        product = partial(torch._int_mm, *integers)
    else:
        kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
        product = partial(torch.mm, *(torch.randn(shape, dtype=kind) for _ in range(2)))
    product()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - start)
    return 2 * PEAK_SIZE**3 / best / 1e9


def open_engines(
    variant: str, backbone: BackboneConfig, spec: InputSpec, threads: int, folder: Path
) -> dict[str, Embed]:
    """All engines of a variant, by name."""
    torch.manual_seed(0)
    network = PAN(VARIANTS[variant].model_copy(update={"backbone": backbone})).eval()
    graph = onnx_graph(network, spec, {})
    float32, int8 = folder / f"{variant}.float32.onnx", folder / f"{variant}.int8.onnx"
    save_onnx(graph, float32)
    save_onnx(quantise(calibrate(graph, synthetic_samples(spec, 8, seed=1).images_NHW3)), int8)
    compiled = copy.deepcopy(network)
    compiled.describe = torch.compile(compiled.describe, dynamic=False)  # type: ignore[method-assign]
    return {
        EAGER: torch_embedder(network, spec),
        "PyTorch compiled": torch_embedder(compiled, spec),
        FLOAT32: onnx_embedder(float32, threads),
        "ONNX Runtime int8": onnx_embedder(int8, threads),
        "OpenVINO float32": openvino_embedder(float32, "float32", threads),
        "OpenVINO bfloat16": openvino_embedder(float32, "bfloat16", threads),
        "OpenVINO int8": openvino_embedder(int8, "int8", threads),
    }


def measure(
    variant: str,
    engines: dict[str, Embed],
    gflop: float,
    peaks: dict[Precision, float],
    spec: InputSpec,
    batch: int,
    rounds: int,
) -> list[Row]:
    """Time all engines on one batch, in turns."""
    images = synthetic_samples(spec, batch).images_NHW3
    work = {name: partial(embed, images) for name, embed in engines.items()}
    take_turns(work, 1)  # compiles, and fills caches
    turns = take_turns(work, rounds)
    rows = []
    for name, taken in turns.items():
        seconds = statistics.median(turn.wall for turn in taken) / batch
        rows.append(
            Row(
                variant=variant,
                batch=batch,
                engine=name,
                milliseconds=1000 * seconds,
                times_eager=ratio(turns[EAGER], taken).wall,
                times_float32=ratio(turns[FLOAT32], taken).wall,
                gflops=gflop / seconds,
                per_cent_of_peak=100 * gflop / seconds / peaks[PRECISIONS[name]],
            )
        )
    return rows


def main(
    variant: list[str] = ["pan_c", "global_bnneck"],  # noqa: B006  (typer reads it only)
    batch: list[int] = [1, 8, 32],  # noqa: B006
    engine: Annotated[list[str] | None, typer.Option(help="Engines to time; default: all.")] = None,
    width: float = 1.0,
    height_pixels: int = 384,
    width_pixels: int = 128,
    threads: int = 2,
    rounds: int = 7,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Time all engines for each variant and batch size."""
    torch.set_num_threads(threads)
    spec, backbone = InputSpec(height=height_pixels, width=width_pixels), BackboneConfig(width=width)
    peaks = {precision: peak_gflops(precision) for precision in dict.fromkeys(PRECISIONS.values())}
    rows: list[Row] = []
    for name in variant:
        gflop = inspect_variant(name, backbone, height_pixels, width_pixels).gflop
        with TemporaryDirectory() as folder:
            engines = open_engines(name, backbone, spec, threads, Path(folder))
            engines = {
                key: embed for key, embed in engines.items() if engine is None or key in (*engine, EAGER, FLOAT32)
            }
            for size in batch:
                rows += measure(name, engines, gflop, peaks, spec, size, rounds)
                torch.compiler.reset()  # compile each batch size separately
    setting = {
        "backbone": backbone.name,
        "pixels": f"{height_pixels}x{width_pixels}",
        "threads": threads,
        "rounds": rounds,
    }
    if as_json:
        print(json.dumps({**setting, "peak_gflops": peaks, "rows": [asdict(row) for row in rows]}))
        return
    title = ", ".join(f"{key} {value}" for key, value in setting.items())
    peak = ", ".join(f"{name} {value:.0f}" for name, value in peaks.items())
    table = Table(title=f"{title}; peak GFLOP/s: {peak}")
    for column in ("variant", "batch", "engine", "ms/crop", "x eager", "x ORT float32", "GFLOP/s", "% of peak"):
        table.add_column(column, justify="left" if column in ("variant", "engine") else "right")
    for row in rows:
        table.add_row(
            row.variant,
            str(row.batch),
            row.engine,
            f"{row.milliseconds:.2f}",
            f"{row.times_eager:.2f}",
            f"{row.times_float32:.2f}",
            f"{row.gflops:.0f}",
            f"{row.per_cent_of_peak:.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
