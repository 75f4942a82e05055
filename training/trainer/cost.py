"""What a run cost on the machine that it ran on: memory of training, time of the test."""

import platform
import resource
from dataclasses import asdict, dataclass
from json import dumps, loads
from pathlib import Path

import torch

COST = "cost.json"


@dataclass(frozen=True, slots=True)
class RunCost:
    """Measured cost of a run; None: not measured."""

    device: str  # name of the GPU, or of the CPU with the number of threads
    peak_memory_gib: float | None  # on a GPU of tensors; on a CPU of the whole process
    test_seconds: float | None  # embedding of query and gallery, and ranking


def measure_cost(device: torch.device, test_seconds: float) -> RunCost:
    """The cost so far of the run in this process."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        return RunCost(torch.cuda.get_device_name(device), peak / 2**30, test_seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
    return RunCost(f"{_processor()}, threads: {torch.get_num_threads()}", peak / 2**30, test_seconds)


def write_cost(folder: Path, cost: RunCost) -> None:
    """Write the cost into the folder of a run. The peak of an earlier part of the run is kept if it is higher."""
    earlier = read_cost(folder)
    peaks = [each.peak_memory_gib for each in (cost, earlier) if each and each.peak_memory_gib is not None]
    values = asdict(cost) | {"peak_memory_gib": max(peaks, default=None)}
    (folder / COST).write_text(dumps(values, indent=1) + "\n", encoding="utf-8")


def read_cost(folder: Path) -> RunCost | None:
    """The cost in the folder of a run; None if there is none."""
    try:
        return RunCost(**loads((folder / COST).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
