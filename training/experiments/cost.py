"""The cost of a variant: parameters, operations and memory as in Table 2 of the paper, and measured time.

Counting uses PyTorch's meta device, where tensors have shapes and no memory.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from training.model import PAN, VARIANTS, BackboneConfig, NetworkConfig

MEMORY_BATCH = 128  # the batch of the paper's memory column


@dataclass(frozen=True, slots=True)
class PaperRow:
    """A row of Table 2: millions of parameters, GiB at batch 128, seconds for the test on a Quadro GV100."""

    parameters: float
    memory: float
    seconds: float


PAPER = {
    "baseline": PaperRow(27.8, 17.79, 72),
    "baseline_w": PaperRow(29.2, 17.80, 74),
    "conv_a": PaperRow(35.2, 17.83, 76),
    "conv_c": PaperRow(32.3, 17.81, 75),
    "pan_a_128": PaperRow(32.5, 17.81, 75),
    "pan_a": PaperRow(33.5, 17.82, 77),
    "pan_a_wide": PaperRow(36.6, 17.84, 79),
    "pan_c_128": PaperRow(33.0, 17.82, 76),
    "pan_c": PaperRow(33.9, 17.83, 76),
    "pan_c_wide": PaperRow(37.0, 17.85, 78),
    "nl": PaperRow(30.5, 21.63, 79),
    "pan_c_nl": PaperRow(36.7, 21.66, 84),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one variant at one input size."""

    variant: str
    parameters: int
    embedding_size: int
    gflop: float  # of the forward pass of one crop; a multiply-add counts as two
    activation_gib: float  # activations kept for the backward pass at batch 128, float32
    ms_per_crop: float | None  # measured in eager PyTorch; None if not requested


def inspect_variant(variant: str, backbone: BackboneConfig, height: int = 384, width: int = 128) -> Cost:
    """Count a variant's parameters, operations and activations. Nothing is allocated."""
    network = _on_meta(variant, backbone)
    with torch.device("meta"):
        crop, batch = torch.empty(1, 3, height, width), torch.empty(MEMORY_BATCH, 3, height, width)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(crop)
    gflop = counter.get_total_flops() / 1e9
    kept = _saved_bytes(network.train(), batch)
    return Cost(variant, network.parameter_count(), network.embedding_size, gflop, kept / 2**30, None)


def _on_meta(variant: str, backbone: BackboneConfig) -> PAN:
    with torch.device("meta"):
        return PAN(configure(variant, backbone))


def configure(variant: str, backbone: BackboneConfig) -> NetworkConfig:
    """The named variant on a given backbone."""
    return VARIANTS[variant].model_copy(update={"backbone": backbone})


def _saved_bytes(network: nn.Module, image: Tensor) -> int:
    """Bytes that autograd saves in a forward pass, without parameters and input; each storage counts once."""
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    own.add(image.untyped_storage()._cdata)
    storages: dict[int, torch.UntypedStorage] = {}  # references keep the addresses from being reused

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(image)
    return sum(storage.nbytes() for storage in storages.values())


def measure(
    variants: Sequence[str], backbone: BackboneConfig, height: int, width: int, batch: int = 8, rounds: int = 7
) -> dict[str, float]:
    """Median milliseconds per crop of each variant's forward pass; the variants take turns, against drift."""
    image = torch.randn(batch, 3, height, width).contiguous(memory_format=torch.channels_last)
    networks = {variant: PAN(configure(variant, backbone)).eval() for variant in variants}
    for network in networks.values():
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    times: dict[str, list[float]] = {variant: [] for variant in variants}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for variant, network in networks.items():
                start = time.perf_counter()
                network.describe(image)
                times[variant].append((time.perf_counter() - start) * 1000 / batch)
    return {variant: statistics.median(found[1:]) for variant, found in times.items()}  # the first round warms up


def as_row(cost: Cost) -> dict[str, object]:
    """A cost with the paper's figures beside it, for printing."""
    paper = PAPER.get(cost.variant)
    return asdict(cost) | {"paper": None if paper is None else asdict(paper)}
