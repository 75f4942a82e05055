"""Measured time and memory of variants, on the CPU or a CUDA GPU."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from training.experiments.cost import MEMORY_BATCH, configure
from training.model import PAN, BackboneConfig

CPU_BATCH, CUDA_BATCH = 8, 64  # crops of a timed forward pass


@dataclass(frozen=True, slots=True)
class Measured:
    """Measured cost of one variant."""

    ms_per_crop: float  # median of the forward pass in eager PyTorch, float32
    training_gib: float | None  # peak of a training step at batch 128, float32; None on a CPU, or if it does not fit


def measure(
    variants: Sequence[str], backbone: BackboneConfig, height: int, width: int, device: torch.device, rounds: int = 7
) -> dict[str, Measured]:
    """Measure each variant. For the time they take turns, so that all see the same clock and temperature."""
    times = _times(variants, backbone, height, width, device, rounds)
    cuda = device.type == "cuda"
    return {
        variant: Measured(times[variant], _training_gib(variant, backbone, height, width, device) if cuda else None)
        for variant in variants
    }


def _network(variant: str, backbone: BackboneConfig, device: torch.device) -> PAN:
    network = PAN(configure(variant, backbone)).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _images(batch: int, height: int, width: int, device: torch.device) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, device=device).contiguous(memory_format=torch.channels_last)


def _times(
    variants: Sequence[str], backbone: BackboneConfig, height: int, width: int, device: torch.device, rounds: int
) -> dict[str, float]:
    """Median milliseconds per crop; the first round warms up."""
    batch = CUDA_BATCH if device.type == "cuda" else CPU_BATCH
    image = _images(batch, height, width, device)
    networks = {variant: _network(variant, backbone, device).eval() for variant in variants}
    times: dict[str, list[float]] = {variant: [] for variant in variants}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for variant, network in networks.items():
                _wait(device)
                start = time.perf_counter()
                network.describe(image)
                _wait(device)
                times[variant].append((time.perf_counter() - start) * 1000 / batch)
    return {variant: statistics.median(found[1:]) for variant, found in times.items()}


def _wait(device: torch.device) -> None:
    """Wait for the kernels that a GPU runs asynchronously."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _training_gib(
    variant: str, backbone: BackboneConfig, height: int, width: int, device: torch.device
) -> float | None:
    """Peak GiB of tensors in two steps of SGD with momentum, parameters and images included."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    try:
        network = _network(variant, backbone, device).train()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
        image = _images(MEMORY_BATCH, height, width, device)
        for _ in range(2):  # the first step allocates the momentum
            optimizer.zero_grad(set_to_none=True)
            network(image).embedding_BIE.square().mean().backward()
            optimizer.step()
        _wait(device)
    except torch.OutOfMemoryError:
        return None
    return (torch.cuda.max_memory_allocated(device) - before) / 2**30
