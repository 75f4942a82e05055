"""What each option of a recipe costs in training: the CPU time of an update against that without the option.

    python -m benchmarks.training.option_cost [--width 0.5] [--batch 64] [--threads 1] [--rounds 5] [--json]

A whole update by the learner: augmentation, forward, losses, backward, optimiser. All take turns; a ratio
is the median over the rounds.
"""

import json
from functools import partial
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common.turns import median, ratio, take_turns
from bundle import InputSpec
from export.parity.samples import synthetic_samples
from training.config import load_config
from training.distributed import World
from training.trainer.learner import Learner

OPTIONS = {
    "short": [],
    "soft margin": ["loss.margin=null"],
    "circle loss": ["loss.circle=1"],
    "moving average": ["optim.ema=0.999"],
    "colour jitter": ["augment.jitter=0.5"],
    "TrivialAugment": ["augment.trivial=0.1"],
    "IBN-a": ["model.ibn=true"],
    "GeM branch": ["model.gem=true"],
    "strong": ["preset=strong", "model.weights=null", "optim.freeze_backbone=0"],
}
IDENTITIES = 551  # of market751, for the classifiers


def main(
    width: float = 0.5,
    height_pixels: int = 128,
    width_pixels: int = 64,
    batch: Annotated[int, typer.Option(min=4, help="Even: two identities.")] = 64,
    threads: int = 1,
    rounds: int = 5,
    precision: str = "float32",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Time an update with each option, interleaved."""
    torch.set_num_threads(threads)
    batch = batch // 2 * 2
    images = synthetic_samples(InputSpec(height=height_pixels, width=width_pixels), batch).images_NHW3
    labels = torch.arange(2).repeat_interleave(batch // 2)
    size = [f"model.width={width}", f"data.height={height_pixels}", f"data.width={width_pixels}"]
    work = {}
    for name, option in OPTIONS.items():
        overrides = ["preset=short", *size, *option, f"precision={precision}", "gradients_every=0"]
        config = load_config(None, [*overrides, "sampler.identities=2", f"sampler.crops={batch // 2}"])
        learner = Learner(config, IDENTITIES, World(), torch.device("cpu"))
        work[name] = partial(learner.update, 0, images, labels, health=False)
    take_turns(work, 1)
    turns = take_turns(work, rounds)
    costs = {name: ratio(of, turns["short"]).cpu for name, of in turns.items()}
    seconds = median(turns["short"]).cpu
    if as_json:
        print(json.dumps({"seconds": seconds, "batch": batch, "cost": costs}))
        return
    table = Table("option", "times short", title=f"short: {seconds:.2f} CPU seconds an update of {batch} crops")
    for name, cost in costs.items():
        table.add_row(name, f"{cost:.3f}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
