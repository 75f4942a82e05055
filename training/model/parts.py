"""Part vectors from a feature map: learned parts (PLM, Section 3.2) and the horizontal stripes of PCB.

Shapes: B batch, C channels, h x w positions (N = h * w), I parts, i parts of one scale.
"""

from typing import Any

import torch
from torch import Tensor, nn

HIDDEN = 64
EPSILON = 1e-4  # the least value that GeM takes the power of; a normal number in float16


def masked_mean(x_BChw: Tensor, mask_BIN: Tensor) -> Tensor:
    """AvgPool(s_j * X) for every mask at once: (B, C, h, w) and (B, I, N) -> (B, C, I).

    The masks are divided by N, not their product with X: a sum over 3,072 positions does not fit into float16.

    X is multiplied as it is stored. An exported graph stores C x N, so there the masks are transposed. PyTorch on a
    CPU stores N x C (channels last), and the exported form of the product would take ten times as long.
    """
    x_BCN = x_BChw.flatten(2)
    positions = x_BCN.shape[2]
    if torch.compiler.is_exporting():
        return torch.matmul(x_BCN, mask_BIN.transpose(1, 2) / positions)
    return torch.matmul(mask_BIN / positions, x_BCN.transpose(1, 2)).transpose(1, 2)


class _PoolParts(torch.autograd.Function):
    """`masked_mean`, whose gradients divide by N first too. By default, autograd sums over C before it divides."""

    @staticmethod
    def forward(ctx: Any, x_BChw: Tensor, mask_BIN: Tensor) -> Tensor:
        ctx.save_for_backward(x_BChw, mask_BIN)
        return masked_mean(x_BChw, mask_BIN)

    @staticmethod
    def backward(ctx: Any, pooled_BCI: Tensor) -> tuple[Tensor, Tensor | None]:
        # under autocast their type may differ from that of the product
        x_BChw, mask_BIN = (saved.to(pooled_BCI.dtype) for saved in ctx.saved_tensors)
        pooled_BIC = pooled_BCI.transpose(1, 2) / mask_BIN.shape[2]
        grad_BNC = torch.matmul(mask_BIN.transpose(1, 2), pooled_BIC)
        grad_BIN = torch.matmul(pooled_BIC, x_BChw.flatten(2)) if ctx.needs_input_grad[1] else None
        return grad_BNC.transpose(1, 2).reshape(x_BChw.shape), grad_BIN


def pool_parts(x_BChw: Tensor, mask_BIN: Tensor) -> Tensor:
    """AvgPool(s_j * X) for every mask at once: (B, C, h, w) and (B, I, N) -> (B, C, I)."""
    return _PoolParts.apply(x_BChw, mask_BIN)  # type: ignore[no-any-return, no-untyped-call]


class SpatialMean(nn.Module):
    """The mean over all positions, (B, C, h, w) -> (B, C, 1, 1).

    AdaptiveAvgPool2d(1) is the same sum, but exports to ONNX as a gather over the whole batch.
    """

    def forward(self, x_BChw: Tensor) -> Tensor:
        """See the class."""
        return x_BChw.mean((2, 3), keepdim=True)


class GeneralisedMean(nn.Module):
    """GeM (Radenovic et al. 2018): (mean of x^p over the positions)^(1/p), p learned; p = 1 is the mean.

    x is divided by its maximum first, which is exact since GeM is homogeneous: a power of x does not fit into float16.
    """

    def __init__(self, p: float = 3.0) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(p))

    def forward(self, x_BChw: Tensor) -> Tensor:
        """(B, C, h, w), all >= 0 -> (B, C, 1)."""
        x_BCN = x_BChw.flatten(2).float().clamp_min(EPSILON)
        largest_BC1 = x_BCN.detach().amax(2, keepdim=True)
        power_BCN = torch.exp(self.p * torch.log(x_BCN / largest_BC1))  # half the time of pow in training
        mean_BC1 = power_BCN.mean(2, keepdim=True)
        return (largest_BC1 * mean_BC1.pow(1 / self.p)).to(x_BChw.dtype)


class PartScale(nn.Module):
    """One granularity: i spatial masks and one channel attention vector.

    Without `affine`, the last batch norm has no learned scale and shift. A mask then keeps about half of its positions
    above zero over a batch whatever the optimiser does.
    """

    def __init__(self, channels: int, parts: int, affine: bool) -> None:
        super().__init__()
        self.parts = parts
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, HIDDEN, 1, bias=False),
            nn.BatchNorm2d(HIDDEN),
            nn.ReLU(inplace=True),
            nn.Conv2d(HIDDEN, parts, 1, bias=False),
            nn.BatchNorm2d(parts, affine=affine),
            nn.ReLU(inplace=True),
        )
        self.channel = nn.Sequential(
            SpatialMean(),
            nn.Conv2d(channels, HIDDEN, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(HIDDEN, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x_BChw: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) -> masks s (B, i, N), all >= 0, and channel attention c (B, C, 1)."""
        return self.spatial(x_BChw).flatten(2), self.channel(x_BChw).flatten(2)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch norm before the last ReLU of the masks."""
        norm = self.spatial[-2]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm


class LearnedParts(nn.Module):
    """PLM: masks of every scale, I = sum of the scales."""

    def __init__(self, channels: int, scales: tuple[int, ...], affine: bool) -> None:
        """`affine`: the last batch norm of each mask has a learned scale and shift."""
        super().__init__()
        self.scales = nn.ModuleList(PartScale(channels, parts, affine) for parts in scales)

    def shift_masks(self, shift: float) -> None:
        """Set the shift of each mask's last batch norm, which must be affine."""
        for scale in self.scales:
            assert isinstance(scale, PartScale)
            nn.init.constant_(scale.last_norm.bias, shift)

    def forward(self, x_BChw: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) -> masks (B, I, N) and, for each of them, its scale's channel attention (B, C, I)."""
        masks, channels = [], []
        for scale in self.scales:
            mask_BiN, attention_BC1 = scale(x_BChw)
            masks.append(mask_BiN)
            channels.append(attention_BC1.expand(-1, -1, mask_BiN.shape[1]))
        return torch.cat(masks, 1), torch.cat(channels, 2)


class Stripes(nn.Module):
    """I horizontal stripes of equal height (bounds as in adaptive average pooling); I = 1 is global pooling."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, x_BChw: Tensor) -> tuple[Tensor, None]:
        """(B, C, h, w) -> constant masks (B, I, N) whose weighted mean is the mean of a stripe."""
        height, width = x_BChw.shape[2:]
        rows = []
        for part in range(self.parts):
            top, bottom = part * height // self.parts, -(-(part + 1) * height // self.parts)
            rows.append([height / (bottom - top) if top <= row < bottom else 0.0 for row in range(height)])
        mask_Ih1 = x_BChw.new_tensor(rows)[:, :, None]
        return mask_Ih1.expand(-1, -1, width).flatten(1).expand(x_BChw.shape[0], -1, -1), None
