"""The counted cost of a variant: parameters, operations and memory as in Table 2 of the paper.

Counting uses PyTorch's meta device, where tensors have shapes and no memory.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

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


def inspect_variant(variant: str, backbone: BackboneConfig, height: int = 384, width: int = 128) -> Cost:
    """Count a variant's parameters, operations and activations. Nothing is allocated."""
    network = _on_meta(variant, backbone)
    with torch.device("meta"):
        crop, batch = torch.empty(1, 3, height, width), torch.empty(MEMORY_BATCH, 3, height, width)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(crop)
    gflop = counter.get_total_flops() / 1e9
    kept = _saved_bytes(network.train(), batch)
    return Cost(variant, network.parameter_count(), network.embedding_size, gflop, kept / 2**30)


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
