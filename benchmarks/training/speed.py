"""Training throughput: our loop against a plain PyTorch loop with ResNet-50, in turns on the same crops.

    python -m benchmarks.training.speed [--loop plain --loop global_pool ...] [--threads 2] [--rounds 7] [--json]

Ours is the trainer itself: sampler, store, augmentation, losses, clipped gradient, optimiser. The plain loop is
`plain_loop.py`. `ratio` is the throughput of a loop over that of `plain`, the median over the rounds. CPU time excludes
other processes: use it on a busy machine, with one thread.

`waits` is the share of time that a loop waits for its batch: in the first epoch, which decodes all crops, and with
decoded crops in memory. It excludes the first batch of a run. `loader` is the throughput of our data loader alone.
"""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from benchmarks.common.turns import median, ratio, take_turns
from benchmarks.training.plain_loop import Crops, plain_loop
from training.config import load_config
from training.data import read_data, trainable
from training.model import PAN, VARIANTS
from training.synth import generate
from training.trainer import Trainer

PEOPLE, CAMERAS, CROPS = 32, 2, 4
FIRST_EPOCH = 2  # rounds that decode every crop, after one warm-up round and before one prefetched round
MOST = PEOPLE // (FIRST_EPOCH + 2)  # identities per batch, so that none occurs twice in these rounds

Loops = dict[str, Iterator[float]]  # one update per item: seconds of waiting for its batch

# name -> keywords of the plain loop
PLAIN: dict[str, dict[str, Any]] = {
    "plain": {},
    "plain channels-last": {"memory_format": torch.channels_last},
    "plain bfloat16": {"memory_format": torch.channels_last, "bfloat16": True},
    "plain stride 2": {"last_stride": 2},
}
# name -> settings of a run; channels last always
OURS: dict[str, list[str]] = {
    "global_pool": ["model.variant=global_pool"],
    "global_bnneck": ["model.variant=global_bnneck"],
    "baseline": ["model.variant=baseline"],
    "pan_c": ["model.variant=pan_c"],
    "global_pool bfloat16": ["model.variant=global_pool", "precision=bfloat16"],
    "pan_c bfloat16": ["model.variant=pan_c", "precision=bfloat16"],
}


@dataclass(frozen=True, slots=True)
class Speed:
    """One loop."""

    loop: str
    images_per_s: float
    cpu_ms_an_image: float
    ratio: float
    cpu_ratio: float
    waits_first_epoch: float
    waits: float


def our_loop(trainer: Trainer) -> Iterator[float]:
    """Run one update per item. Yields the seconds of waiting for its batch."""
    with closing(trainer.batches()) as batches:
        for step in count():
            start = time.perf_counter()
            images, labels = next(batches)
            waited = time.perf_counter() - start
            trainer.learner.update(step, images, labels, health=step % 10 == 9)
            yield waited


def loader_speed(trainer: Trainer) -> dict[str, float]:
    """Throughput of our data loader alone, in images per second. Afterwards, all crops are in memory."""
    found = {}
    batches_a_round = len(trainer.sampler.members) // trainer.sampler.identities
    for name in ("first_epoch", "cached"):
        with closing(trainer.batches()) as batches:
            start = time.perf_counter()
            images = sum(len(next(batches)[1]) for _ in range(batches_a_round))
            found[name] = images / (time.perf_counter() - start)
        trainer.store.get(range(len(trainer.store)))
    return found


def make_loops(names: list[str], data: Path, settings: list[str], workers: int) -> tuple[list[Trainer], Loops]:
    """Our trainers, and all loops by name."""
    crops, labels = trainable(read_data(data).train)
    trainers, loops = [], {}
    for name in names:
        config = load_config(None, [*settings, *OURS.get(name, [])])
        if name in OURS:
            trainers.append(Trainer(config, data.parent / "never written", Console(quiet=True)))
            loops[name] = our_loop(trainers[-1])
        else:
            plain_crops = Crops([crop.path for crop in crops], labels.tolist(), config.data.height, config.data.width)
            batch = config.sampler.identities * config.sampler.crops
            loops[name] = plain_loop(plain_crops, batch, workers, **PLAIN[name])
    return trainers, loops


def measure(trainers: list[Trainer], loops: Loops, rounds: int, batch: int) -> list[Speed]:
    """Run one step of every loop per round."""
    waits: dict[str, list[float]] = {name: [] for name in loops}

    def step(name: str) -> None:
        waits[name].append(next(loops[name]))

    work = {name: partial(step, name) for name in loops}
    take_turns(work, 1)
    first = take_turns(work, FIRST_EPOCH)
    for trainer in trainers:
        trainer.store.get(range(len(trainer.store)))
    turns = take_turns(work, rounds)

    def speed(name: str) -> Speed:
        faster = ratio(turns["plain"], turns[name])
        return Speed(
            loop=name,
            images_per_s=batch / median(turns[name]).wall,
            cpu_ms_an_image=1000 * median(turns[name]).cpu / batch,
            ratio=faster.wall,
            cpu_ratio=faster.cpu,
            waits_first_epoch=sum(waits[name][1:-rounds]) / sum(turn.wall for turn in first[name]),
            waits=sum(waits[name][-rounds:]) / sum(turn.wall for turn in turns[name]),
        )

    return [speed(name) for name in loops]


def main(
    loop: Annotated[list[str] | None, typer.Option(help=f"{', '.join((*PLAIN, *OURS))}; default: all.")] = None,
    height: int = 384,
    width: int = 128,
    identities: Annotated[int, typer.Option(min=2, max=MOST, help=f"A batch has {CROPS} crops of each.")] = 4,
    threads: int = 2,
    workers: Annotated[int, typer.Option(help="Processes of the plain loop's DataLoader.")] = 0,
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Train the selected loops and `plain` in turns."""
    names = list(dict.fromkeys(["plain", *(loop or (*PLAIN, *OURS))]))
    if unknown := [name for name in names if name not in (*PLAIN, *OURS)]:
        raise typer.BadParameter(f"{unknown[0]} is unknown; known are: {', '.join((*PLAIN, *OURS))}")
    torch.set_num_threads(threads)
    batch = identities * CROPS
    with TemporaryDirectory() as folder:
        data = Path(folder) / "people"
        people = partial(generate, train_identities=PEOPLE, test_identities=0, cameras=CAMERAS, crops_per_camera=CROPS)
        people(data, height=height, width=width, workers=1)
        settings = [f"data.path={data}", f"data.height={height}", f"data.width={width}", f"threads={threads}"]
        settings += [f"sampler.identities={identities}", f"sampler.crops={CROPS}"]
        start = Path(folder) / "random.safetensors"  # the preset refuses to start without weights
        save_file(PAN(VARIANTS["global_pool"]).backbone.state_dict(), start)
        settings += [f"model.weights={start}"]
        (reader,), _ = make_loops(["global_pool"], data, settings, workers)
        loader = loader_speed(reader)
        speeds = measure(*make_loops(names, data, settings, workers), rounds, batch)
    setting = {"size": f"{height}x{width}", "batch": batch, "threads": threads, "workers": workers, "rounds": rounds}
    if as_json:
        print(json.dumps({**setting, "loops": [asdict(speed) for speed in speeds], "loader": loader}))
        return
    table = Table(title="training ResNet-50, " + ", ".join(f"{key} {value}" for key, value in setting.items()))
    for column in ("loop", "images/s", "ratio", "CPU ms an image", "ratio", "waits: first epoch", "cached"):
        table.add_column(column, justify="left" if column == "loop" else "right")
    for speed in speeds:
        by_clock = f"{speed.images_per_s:.2f}", f"{speed.ratio:.2f}"
        by_cpu = f"{speed.cpu_ms_an_image:.1f}", f"{speed.cpu_ratio:.2f}"
        table.add_row(speed.loop, *by_clock, *by_cpu, f"{speed.waits_first_epoch:.2%}", f"{speed.waits:.2%}")
    Console().print(table)
    print(f"our loader alone: {loader['first_epoch']:.0f} images/s decoding, {loader['cached']:.0f} from memory")


if __name__ == "__main__":
    typer.run(main)
