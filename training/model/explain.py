"""Explanations: part masks, and the compatibility maps of part-aware attention.

Shapes: B batch, I parts, h x w positions of the last feature map, h_l x w_l of middle block l.
"""

from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
from torch import Tensor

from training.model.attention import PartAttention
from training.model.network import PAN


class Explanation(NamedTuple):
    """Maps of a batch of crops."""

    mask_BIhw: Tensor  # s of every part, all >= 0; of a variant with stripes, the stripes
    compatibility: list[Tensor]  # theta(P, X_l) (Eq. 2) of each middle block, (B, I, h_l, w_l); empty without PAM


def untrained_attention(network: PAN, seed: int = 0) -> list[PartAttention]:
    """PAMs for a network without any, with phi and psi at random initial values.

    Their maps show what the features of the network answer to a part that no PAM was trained with (Fig. 5, top right).
    """
    *middle, last = network.backbone.channels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [PartAttention(last, channels, 256, channels) for channels in middle]


def explain(network: PAN, image_B3HW: Tensor, pams: Iterable[PartAttention] | None = None) -> Explanation:
    """Normalised images (B, 3, H, W) -> masks and compatibility maps. Only tensor code, so that it can be exported.

    `pams`: None takes those of the network.
    """
    blocks = network.backbone(image_B3HW)
    part_BCI, mask_BIN = network.pooled_parts(blocks)
    if pams is None:
        pams = cast(Iterable[PartAttention], network.pams)
    maps = [
        torch.unflatten(pam.compatibility(part_BCI, x.flatten(2)), 2, x.shape[2:])
        for pam, x in zip(pams, blocks, strict=False)  # X4 has none
    ]
    return Explanation(torch.unflatten(mask_BIN, 2, blocks[-1].shape[2:]), maps)
