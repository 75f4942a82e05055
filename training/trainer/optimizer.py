"""Optimiser and learning-rate schedule of a run."""

import math

import torch
from torch import nn

from training.config import OptimConfig
from training.model import PAN


def make_optimizer(network: PAN, heads: nn.Module, config: OptimConfig, pretrained: bool) -> torch.optim.Optimizer:
    """SGD or AdamW with two groups: the backbone, at `backbone_lr` if it is pre-trained, and all new layers.

    Non-local blocks are inside the backbone but belong to the new layers.
    """
    backbone = [p for name, p in network.backbone.named_parameters() if not name.startswith("between.")]
    known = {id(parameter) for parameter in backbone}
    new = [p for p in (*network.parameters(), *heads.parameters()) if id(p) not in known and p.requires_grad]
    groups = [
        {"params": backbone, "lr": config.backbone_lr if pretrained else config.lr},
        {"params": new, "lr": config.lr},
    ]
    if config.name == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay)


def lr_factor(step: int, config: OptimConfig) -> float:
    """Factor on every group's learning rate at a step (0-based): a pure function, so that resuming is exact."""
    warm = round(config.warmup * config.iterations)
    if step < warm:
        return config.warmup_start + (1 - config.warmup_start) * (step + 1) / (warm + 1)
    if config.schedule == "steps":
        return float(0.1 ** sum(step >= round(m * config.iterations) for m in config.milestones))
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, config.iterations - warm)))
