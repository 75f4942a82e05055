"""Cost of part-aware attention: PAN_c against its baseline, in ms per crop, in PyTorch and in ONNX Runtime.

    python -m benchmarks.training.pam_cost [--only training] [--width 1.0] [--batch 8] [--threads 2] [--rounds 9] \
        [--json]

`training` is a complete update: augmentation, forward, losses, backward, optimiser. Weights are random, because time
does not depend on them. All variants run in turns; a ratio is the median over the rounds. CPU time excludes other
processes: use it on a busy machine, with one thread and a batch of 16 (for smaller batches on one thread, PyTorch
uses a slower convolution).
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common.turns import median, ratio, take_turns
from bundle import ImageArray, InputSpec
from export.bundles.writer import save_onnx
from export.engines import onnx_embedder
from export.onnx.graph import onnx_graph
from export.parity.samples import synthetic_samples
from training.config import load_config
from training.distributed import World
from training.embed import torch_embedder
from training.model import PAN
from training.trainer.learner import Learner

KINDS = ("PyTorch", "ONNX Runtime", "training")
IDENTITIES = 751  # Market-1501's, for the classifiers


def prepare(kinds: list[str], settings: list[str], folder: Path, images: ImageArray) -> dict[str, Callable[[], object]]:
    """The timed functions of a variant, by kind. `folder` is for the ONNX file."""
    config = load_config(
        None, [*settings, "model.weights=null", "sampler.identities=2", f"sampler.crops={len(images) // 2}"]
    )
    spec, threads = config.input_spec(), torch.get_num_threads()
    work: dict[str, Callable[[], object]] = {}
    if "PyTorch" in kinds:
        work["PyTorch"] = partial(torch_embedder(PAN(config.model.network()).eval(), spec), images)
    if "ONNX Runtime" in kinds:
        path = folder / f"{config.model.variant}.onnx"
        save_onnx(onnx_graph(PAN(config.model.network()).eval(), spec, {}), path)
        work["ONNX Runtime"] = partial(onnx_embedder(path, threads), images)
    if "training" in kinds:
        learner = Learner(config, IDENTITIES, World(), torch.device("cpu"))
        labels = torch.arange(2).repeat_interleave(len(images) // 2)
        work["training"] = partial(learner.update, 0, images, labels, health=False)
    return work


def main(
    variant: str = "pan_c",
    baseline: str = "baseline",
    only: Annotated[list[str] | None, typer.Option(help=f"{', '.join(KINDS)}; default: all.")] = None,
    width: float = 1.0,
    height_pixels: int = 384,
    width_pixels: int = 128,
    batch: Annotated[int, typer.Option(min=4, help="Even: two identities.")] = 8,
    threads: int = 2,
    rounds: int = 9,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Time two variants on ResNet-50 of a width, interleaved."""
    kinds = only or list(KINDS)
    if unknown := set(kinds) - set(KINDS):
        raise typer.BadParameter(f"{unknown.pop()} is unknown; known are: {', '.join(KINDS)}")
    torch.set_num_threads(threads)
    settings = [f"model.width={width}", f"data.height={height_pixels}", f"data.width={width_pixels}"]
    images = synthetic_samples(InputSpec(height=height_pixels, width=width_pixels), batch // 2 * 2).images_NHW3
    with TemporaryDirectory() as folder:
        work: dict[str, Callable[[], object]] = {}
        for name in (baseline, variant):
            prepared = prepare(kinds, [*settings, f"model.variant={name}"], Path(folder), images)
            work |= {f"{name} {kind}": do for kind, do in prepared.items()}
        take_turns(work, 1)
        turns = take_turns(work, rounds)
    milliseconds = {name: 1000 * median(of).wall / len(images) for name, of in turns.items()}
    ratios = {kind: ratio(turns[f"{variant} {kind}"], turns[f"{baseline} {kind}"]) for kind in kinds}
    size = f"{height_pixels}x{width_pixels}"
    setting = {"width": width, "size": size, "batch": len(images), "threads": threads, "rounds": rounds}
    if as_json:
        by_clock = {kind: asdict(both) for kind, both in ratios.items()}
        print(json.dumps({**setting, "milliseconds_a_crop": milliseconds, "ratio": by_clock}))
        return
    table = Table(title="ms a crop on ResNet-50, " + ", ".join(f"{key} {value}" for key, value in setting.items()))
    for column in ("", baseline, variant, "ratio", "ratio of CPU time"):
        table.add_column(column, justify="right" if column else "left")
    for kind in kinds:
        row = (f"{milliseconds[f'{name} {kind}']:.2f}" for name in (baseline, variant))
        table.add_row(kind, *row, f"{ratios[kind].wall:.3f}", f"{ratios[kind].cpu:.3f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
