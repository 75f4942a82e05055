"""The circle loss on pairs of descriptors (Sun et al. 2020, Eq. 6).

Shapes: B batch, D numbers of a descriptor.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def circle_loss(descriptor_BD: Tensor, label_B: Tensor, margin: float, scale: float) -> Tensor:
    """Circle loss of every anchor against its positives and negatives in the batch, mean over the anchors.

        log(1 + sum_j exp(scale * a_n (s_n - m)) * sum_i exp(-scale * a_p (s_p - 1 + m)))
        a_p = [1 + m - s_p]+, a_n = [s_n + m]+, without gradient; s are cosines, m the margin

    Every label must occur twice or more, and there must be two labels.
    """
    unit_BD = F.normalize(descriptor_BD.float(), dim=1)
    cosine_BB = unit_BD @ unit_BD.T
    same = label_B.unsqueeze(0) == label_B.unsqueeze(1)
    positive = same & ~torch.eye(len(label_B), dtype=torch.bool, device=label_B.device)
    weight_p = F.relu(1 + margin - cosine_BB.detach())
    weight_n = F.relu(cosine_BB.detach() + margin)
    logit_p = (-scale * weight_p * (cosine_BB - 1 + margin)).masked_fill(~positive, -torch.inf)
    logit_n = (scale * weight_n * (cosine_BB - margin)).masked_fill(same, -torch.inf)
    return F.softplus(logit_p.logsumexp(1) + logit_n.logsumexp(1)).mean()
