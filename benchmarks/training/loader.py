"""Images a second that the loader delivers alone, beside one that decodes by plain Pillow, in turns on the same crops.

    python -m benchmarks.training.loader [--data FOLDER] [--height 384] [--width 128] [--threads 2] [--json]

Ours is the trainer's: sampler, decoding threads, batches ahead, nothing cached. The plain loader has the same sampler,
threads and batches ahead, and a task for each crop that opens, converts and resizes it by Pillow: what this project did
before. `ratio` is ours relative to it, by wall clock and by CPU time, a median over the rounds. `cached` are the same
crops from memory. The crops are synthetic people in the size of the input unless a data set is named.
"""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from PIL import Image, ImageOps

from benchmarks.common.turns import median, ratio, take_turns
from bundle import ImageArray, InputSpec
from training.data import Crop, CropStore, IdentitySampler, prefetch, read_data, trainable
from training.synth import generate

IDENTITIES, CROPS = 16, 4  # of a batch


class PillowStore:
    """A task for each crop; Pillow from the file to the array."""

    def __init__(self, crops: Sequence[Crop], spec: InputSpec, threads: int) -> None:
        self.crops, self.size = crops, (spec.width, spec.height)
        self.pool = ThreadPoolExecutor(threads)

    def get(self, indices: npt.NDArray[np.int64]) -> ImageArray:
        """Crops by index, (B, H, W, 3) uint8."""
        return np.stack(list(self.pool.map(self._load, indices)))

    def _load(self, index: int) -> ImageArray:
        with Image.open(self.crops[index].path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        return np.asarray(upright.resize(self.size, Image.Resampling.BILINEAR))


def load(store: CropStore | PillowStore, sampler: IdentitySampler, steps: int) -> None:
    """Batches as a run gets them, and nothing else."""
    with closing(prefetch(lambda step: store.get(sampler(step)), range(steps))) as batches:
        for _ in batches:
            pass


def main(
    data: Annotated[Path | None, typer.Option(exists=True, help="A data set; synthetic people by default.")] = None,
    height: int = 384,
    width: int = 128,
    threads: int = 2,
    steps: Annotated[int, typer.Option(min=1, help="Batches of a turn.")] = 4,
    rounds: Annotated[int, typer.Option(min=1)] = 15,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Load the same batches in turns by both."""
    with TemporaryDirectory() as folder:
        path = data or Path(folder) / "people"
        if data is None:
            people = partial(generate, train_identities=32, test_identities=0, cameras=2, crops_per_camera=4)
            people(path, height=height, width=width, workers=1)
        crops, labels = trainable(read_data(path).train)
        spec, sampler = InputSpec(height=height, width=width), IdentitySampler(labels, IDENTITIES, CROPS, seed=0)
        cached = CropStore(crops[:1000], spec, threads=threads)
        stores: dict[str, CropStore | PillowStore] = {
            "ours": CropStore(crops, spec, cache_gib=0, threads=threads),
            "pillow": PillowStore(crops, spec, threads),
        }
        assert np.array_equal(stores["ours"].get(sampler(0)), stores["pillow"].get(sampler(0)))
        work: dict[str, Callable[[], object]] = {
            name: partial(load, store, sampler, steps) for name, store in stores.items()
        }
        everything = np.arange(len(cached))
        cached.get(everything)
        work["cached"] = lambda: cached.get(everything)
        turns = take_turns(work, rounds)
    faster = ratio(turns["pillow"], turns["ours"])
    images = steps * IDENTITIES * CROPS
    found = {name: images / median(turns[name]).wall for name in stores} | {
        "cached": len(cached) / median(turns["cached"]).wall,
        "ratio": faster.wall,
        "cpu_ratio": faster.cpu,
    }
    setting = {"size": f"{height}x{width}", "threads": threads, "rounds": rounds}
    if as_json:
        print(json.dumps({**setting, **found}))
        return
    print(", ".join(f"{key} {value}" for key, value in setting.items()))
    print(
        f"ours {found['ours']:,.0f} images/s, plain Pillow {found['pillow']:,.0f}, from memory {found['cached']:,.0f}"
    )
    print(f"ratio {found['ratio']:.2f} by wall clock, {found['cpu_ratio']:.2f} by CPU time")


if __name__ == "__main__":
    typer.run(main)
