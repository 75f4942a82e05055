"""Latency of several engines, measured in turns so that changes of the machine's load affect all alike."""

import statistics
import time
from collections.abc import Mapping

from bundle import ImageArray
from training.embed import Embed


def ms_per_crop(engines: Mapping[str, Embed], images_BHW3: ImageArray, rounds: int) -> dict[str, float]:
    """Milliseconds per crop: the median time per batch over `rounds`, divided by the batch size, after one warm-up."""
    measured: dict[str, list[float]] = {name: [] for name in engines}
    for embed in engines.values():
        embed(images_BHW3)
    for _ in range(rounds):
        for name, embed in engines.items():
            start = time.perf_counter()
            embed(images_BHW3)
            measured[name].append(1000 * (time.perf_counter() - start) / len(images_BHW3))
    return {name: statistics.median(times) for name, times in measured.items()}
