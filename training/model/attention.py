"""Part-aware attention (PAM, Section 3.1): part vectors query a middle feature map.

Shapes: B batch, I parts, C4 channels of a part vector, D inner width, C channels and N positions of the map, O out.
"""

import torch
from torch import Tensor, nn

from training.model.parts import pool_parts


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

    def compatibility(self, part_BCI: Tensor, x_BCN: Tensor) -> Tensor:
        """theta(P, X) = phi(P)^T psi(X): (B, C4, I) and (B, C, N) -> (B, I, N)."""
        query_BIC = torch.matmul(self.phi(part_BCI.transpose(1, 2)), self.psi.weight)
        return torch.matmul(query_BIC, x_BCN)

    def forward(self, part_BCI: Tensor, x_BChw: Tensor) -> Tensor:
        """(B, C4, I) and (B, C, h, w) -> Z (B, O, I)."""
        map_BIN = self.compatibility(part_BCI, x_BChw.flatten(2))
        warped_BCI = pool_parts(x_BChw, map_BIN)  # X A^T / N
        return self.f(warped_BCI.transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]
