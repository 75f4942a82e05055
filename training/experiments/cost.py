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

from training.experiments.paper import PRINTED
from training.model import PAN, VARIANTS, BackboneConfig, NetworkConfig

MEMORY_BATCH = 128  # the batch of the paper's memory column


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
    paper = PRINTED["table2"].get(cost.variant)
    printed = None if paper is None else {name: getattr(paper, name) for name in ("parameters", "memory", "seconds")}
    return asdict(cost) | {"paper": printed}
