"""Gradient norms: of a whole update, which may be clipped, and of each loss term alone."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


def learning_parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The parameters of an optimiser that are not frozen."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.requires_grad]


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """L2 norm of all gradients together, as after `backward`; a scalar on their device."""
    return get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])


def clip(parameters: Iterable[Tensor], norm: Tensor, largest: float | None) -> Tensor:
    """Scale gradients of the given norm to at most `largest`; None: leave them. Returns the factor, on their device."""
    if largest is None:
        return torch.ones_like(norm)
    clip_grads_with_norm_(parameters, largest, norm)
    return (largest / (norm + 1e-6)).clamp(max=1.0)


def term_gradient_norms(terms: Mapping[str, Tensor], parameters: list[Tensor], scale: float) -> dict[str, Tensor]:
    """The norm of each loss term's own gradient. The graph is kept for the backward pass of their sum.

    Each term costs a backward pass. `scale` is the factor of float16's loss scaling, without which small gradients
    would vanish.
    """
    norms = {}
    for name, term in terms.items():
        found = torch.autograd.grad(term * scale, parameters, retain_graph=True, allow_unused=True)
        norms[name] = get_total_norm([gradient for gradient in found if gradient is not None]) / scale
    return norms
