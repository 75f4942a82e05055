"""The three terms of the paper's loss, and statistics of the masks.

    L = L_xent + triplet_weight * L_triplet + orthogonality_weight * L_orth        (Eq. 5)

Shapes: B batch, I parts, i parts of one scale, N positions, K identities, D numbers of a descriptor.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def part_cross_entropy(logit_IBK: Tensor, label_B: Tensor, smoothing: float = 0.0) -> Tensor:
    """Sum over the parts of each part's mean cross-entropy."""
    parts, batch, _ = logit_IBK.shape
    mean = F.cross_entropy(logit_IBK.float().flatten(0, 1), label_B.repeat(parts), label_smoothing=smoothing)
    assert batch == label_B.shape[0]
    return mean * parts


def batch_hard_triplet(descriptor_BD: Tensor, label_B: Tensor, margin: float | None) -> Tensor:
    """Batch-hard triplet loss (Hermans et al. 2017) on Euclidean distances.

    Per anchor the farthest positive and the nearest negative: mean of max(0, margin + d_pos - d_neg), or of
    log(1 + exp(d_pos - d_neg)) where `margin` is None.
    """
    squared = (descriptor_BD.float().unsqueeze(0) - descriptor_BD.float().unsqueeze(1)).pow(2).sum(2)
    distance = squared.clamp_min(1e-12).sqrt()
    same = label_B.unsqueeze(0) == label_B.unsqueeze(1)
    farthest_positive = distance.masked_fill(~same, -torch.inf).amax(1)
    nearest_negative = distance.masked_fill(same, torch.inf).amin(1)
    gap = farthest_positive - nearest_negative
    return F.softplus(gap).mean() if margin is None else F.relu(gap + margin).mean()


def _cosines(mask_BiN: Tensor) -> Tensor:
    unit = F.normalize(mask_BiN.float(), dim=2)
    return torch.matmul(unit, unit.transpose(1, 2))


def mask_orthogonality(mask_BIN: Tensor, scales: tuple[int, ...], form: Literal["raw", "unit"] = "unit") -> Tensor:
    """L_orth = mean over scales of || M M^T - I ||_F (Eq. 4), mean over the batch.

    The rows of M are the masks of a scale. `unit` scales them to unit length first: the diagonal is then 1, and only
    their overlap counts, so that a scale with one part adds nothing. `raw` takes them as they are, which also drives
    the length of each mask to 1.
    """
    total = mask_BIN.new_zeros((), dtype=torch.float32)
    for mask_BiN in torch.split(mask_BIN, list(scales), 1):
        if form == "unit" and mask_BiN.shape[1] == 1:
            continue
        row_BiN = F.normalize(mask_BiN.float(), dim=2) if form == "unit" else mask_BiN.float()
        product_Bii = torch.matmul(row_BiN, row_BiN.transpose(1, 2))
        excess_Bii = product_Bii - torch.eye(mask_BiN.shape[1], device=mask_BIN.device)
        total = total + excess_Bii.square().sum((1, 2)).clamp_min(1e-12).sqrt().mean()
    return total / len(scales)


@dataclass(frozen=True, slots=True)
class MaskHealth:
    """Statistics of the masks: dead masks, and overlap within a scale."""

    live: list[float]  # per mask: fraction of the images in which it has any position above zero
    overlap: float  # mean cosine between the masks of a scale, over scales of two parts and more
    copies: list[tuple[int, int]]  # pairs of masks of one scale with a mean cosine above 0.9

    def warnings(self) -> list[str]:
        """One warning for each problem."""
        words = [
            f"mask {part + 1} is dead: it is zero everywhere on {100 - 100 * live:.0f} % of the images; "
            "lower optim.lr or lengthen optim.warmup"
            for part, live in enumerate(self.live)
            if live < 0.5
        ]
        words += [
            f"masks {a + 1} and {b + 1} are copies of one another; raise loss.orthogonality" for a, b in self.copies
        ]
        return words


@torch.no_grad()
def mask_health(mask_BIN: Tensor, scales: tuple[int, ...]) -> MaskHealth:
    """Live fraction of every mask, overlap within the scales, and pairs that have become copies."""
    live = (mask_BIN.amax(2) > 0).float().mean(0).tolist()
    cosines, copies, first = [], [], 0
    for mask_BiN in torch.split(mask_BIN, list(scales), 1):
        mean_ii = _cosines(mask_BiN).mean(0)
        for a in range(mask_BiN.shape[1]):
            for b in range(a + 1, mask_BiN.shape[1]):
                cosines.append(mean_ii[a, b].item())
                if cosines[-1] > 0.9:
                    copies.append((first + a, first + b))
        first += mask_BiN.shape[1]
    return MaskHealth(live, sum(cosines) / len(cosines) if cosines else 0.0, copies)
