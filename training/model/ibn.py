"""IBN-a (Pan et al. 2018): instance norm on the first half of the channels, batch norm on the rest.

Shapes: B batch, C channels, h x w positions. Parameter names are those of the authors' weights (`IN.*`, `BN.*`).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class InstanceBatchNorm(nn.Module):
    """The norm of IBN-a. Instance norm removes style (brightness, contrast, colour cast) from half of the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.instance_channels = channels // 2
        self.IN = nn.InstanceNorm2d(self.instance_channels, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.instance_channels)

    def forward(self, x_BChw: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        instance, batch = torch.split(x_BChw, [self.instance_channels, x_BChw.shape[1] - self.instance_channels], 1)
        return torch.cat([self.IN(instance.contiguous()), self._batch_norm(batch)], 1)

    def _batch_norm(self, x: Tensor) -> Tensor:
        """In a graph, the same affine map as one product and one sum.

        Exporters do not fold a batch norm behind a split into the convolution, and one that is left ends the float16
        part of a graph.
        """
        norm = self.BN
        if not torch.compiler.is_exporting():
            return norm(x)  # type: ignore[no-any-return]
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def split_batch_norms(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a plain ResNet under the names of IBN-a, where `own` has them.

    The instance norm takes scale and shift of its channels, the batch norm also the statistics of the others.
    """
    fitted: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        prefix, _, last = name.rpartition(".")
        inner = own.get(f"{prefix}.IN.weight")
        if inner is None:
            fitted[name] = tensor
        elif not tensor.ndim:  # the counter of batches
            fitted[f"{prefix}.BN.{last}"] = tensor
        else:
            fitted[f"{prefix}.BN.{last}"] = tensor[len(inner) :]
            if last in ("weight", "bias"):
                fitted[f"{prefix}.IN.{last}"] = tensor[: len(inner)]
    return fitted
