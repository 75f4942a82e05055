"""Part-aware attention (PAM, Section 3.1): part vectors query a middle feature map.

Shapes: B batch, I parts, C4 channels of a part vector, D inner width, C channels and N positions of the map, O out.
"""

from typing import Any

import torch
from torch import Tensor, nn

from training.model.parts import masked_mean


class _QueryAndPool(torch.autograd.Function):
    """(B, I, C) and (B, C, h, w) -> (Q X) X^T / N, (B, C, I), with the gradient of X taken once.

    X is in both products. By default, autograd computes two gradients of the size of X in two memory formats and adds
    them, which costs more than the rest of PAM. Here both are one product, in the memory format of X.
    """

    @staticmethod
    def forward(ctx: Any, query_BIC: Tensor, x_BChw: Tensor) -> Tensor:
        map_BIN = torch.matmul(query_BIC, x_BChw.flatten(2))
        ctx.save_for_backward(query_BIC, x_BChw, map_BIN)
        return masked_mean(x_BChw, map_BIN)

    @staticmethod
    def backward(ctx: Any, warped_BCI: Tensor) -> tuple[Tensor, Tensor]:
        query_BIC, x_BChw, map_BIN = ctx.saved_tensors
        x_BNC = x_BChw.flatten(2).transpose(1, 2)
        warped_BIC = warped_BCI.transpose(1, 2) / x_BNC.shape[1]
        grad_BIN = torch.matmul(warped_BIC, x_BNC.transpose(1, 2))
        grad_BNC = torch.matmul(
            torch.cat([grad_BIN, map_BIN], 1).transpose(1, 2), torch.cat([query_BIC, warped_BIC], 1)
        )
        return torch.matmul(grad_BIN, x_BNC), grad_BNC.transpose(1, 2).reshape(x_BChw.shape)


class PartAttention(nn.Module):
    """Z = phi(P) psi(X)^T f(X) / N (Eq. 3), with phi, psi, f linear maps without bias.

    Nothing non-linear stands between the three, so the products are taken in the cheap order:

        A = (phi(P) W_psi) X          I x N, the compatibility map (Eq. 2)
        Z = W_f (X A^T) / N           never a D x N or O x N map

    about 2*I*N*C multiply-adds instead of N*C*(D + O). X enters both products as it is stored and is never copied.
    """

    def __init__(self, part_channels: int, channels: int, dim: int, out_channels: int) -> None:
        super().__init__()
        self.phi = nn.Linear(part_channels, dim, bias=False)
        self.psi = nn.Linear(channels, dim, bias=False)
        self.f = nn.Linear(channels, out_channels, bias=False)

    def query(self, part_BCI: Tensor) -> Tensor:
        """phi(P)^T W_psi, what a position is compared with: (B, C4, I) -> (B, I, C)."""
        return torch.matmul(self.phi(part_BCI.transpose(1, 2)), self.psi.weight)

    def compatibility(self, part_BCI: Tensor, x_BCN: Tensor) -> Tensor:
        """theta(P, X) = phi(P)^T psi(X): (B, C4, I) and (B, C, N) -> (B, I, N)."""
        return torch.matmul(self.query(part_BCI), x_BCN)

    def forward(self, part_BCI: Tensor, x_BChw: Tensor) -> Tensor:
        """(B, C4, I) and (B, C, h, w) -> Z (B, O, I)."""
        warped_BCI: Tensor = _QueryAndPool.apply(self.query(part_BCI), x_BChw)  # type: ignore[no-untyped-call]
        return self.f(warped_BCI.transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]
