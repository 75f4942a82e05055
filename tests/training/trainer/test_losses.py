"""The losses against loops that read like the equations."""

import math

import pytest
import torch
import torch.nn.functional as F

from training.trainer.circle_loss import circle_loss
from training.trainer.losses import batch_hard_triplet, mask_health, mask_orthogonality, part_cross_entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_the_sum_over_parts(smoothing: float) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(6, 4, 5), torch.tensor([0, 1, 4, 4])
    expected = sum(F.cross_entropy(logits[i], labels, label_smoothing=smoothing) for i in range(6))
    torch.testing.assert_close(part_cross_entropy(logits, labels, smoothing), expected)


@pytest.mark.parametrize("margin", [0.3, None])
def test_triplet_takes_the_hardest_positive_and_negative(margin: float | None) -> None:
    torch.manual_seed(1)
    rows, labels = torch.randn(8, 5), [0, 0, 0, 1, 1, 2, 2, 2]
    total = 0.0
    for a in range(8):
        distances = [math.dist(rows[a].tolist(), rows[b].tolist()) for b in range(8)]
        positive = max(d for b, d in enumerate(distances) if labels[b] == labels[a])
        negative = min(d for b, d in enumerate(distances) if labels[b] != labels[a])
        gap = positive - negative
        total += math.log1p(math.exp(gap)) if margin is None else max(0.0, gap + margin)
    got = batch_hard_triplet(rows, torch.tensor(labels), margin)
    assert got.item() == pytest.approx(total / 8, rel=1e-4)


def test_circle_loss_is_equation_6_of_its_paper() -> None:
    """With the weights of Eq. 5 as numbers, so that the gradient is that of the similarities alone."""
    torch.manual_seed(1)
    rows, labels, m, scale = (
        torch.randn(7, 5, dtype=torch.float64, requires_grad=True),
        [0, 0, 0, 1, 1, 2, 2],
        0.25,
        8.0,
    )
    total = torch.zeros((), dtype=torch.float64)
    for a in range(7):
        positive = negative = torch.zeros((), dtype=torch.float64)
        for b in range(7):
            s = F.cosine_similarity(rows[a], rows[b], dim=0)
            if labels[b] != labels[a]:
                negative = negative + torch.exp(scale * max(0.0, s.item() + m) * (s - m))
            elif a != b:
                positive = positive + torch.exp(-scale * max(0.0, 1 + m - s.item()) * (s - (1 - m)))
        total = total + torch.log(1 + negative * positive) / 7
    got = circle_loss(rows, torch.tensor(labels), m, scale)
    assert got.item() == pytest.approx(total.item(), rel=1e-4)
    (expected,) = torch.autograd.grad(total, rows)
    (gradient,) = torch.autograd.grad(got, rows)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)


def test_orthogonality_is_equation_4_on_unit_rows() -> None:
    torch.manual_seed(2)
    masks, total = torch.rand(3, 6, 20), 0.0
    for image in range(3):
        for rows in (masks[image, 0:1], masks[image, 1:3], masks[image, 3:6]):
            unit = rows / rows.norm(dim=1, keepdim=True)
            total += torch.linalg.matrix_norm(unit @ unit.T - torch.eye(len(rows))).item() / 3 / 3
    assert mask_orthogonality(masks, (1, 2, 3)).item() == pytest.approx(total, rel=1e-4)


def test_orthogonality_is_equation_4_on_raw_rows() -> None:
    torch.manual_seed(2)
    masks, total = torch.rand(3, 6, 20), 0.0
    for image in range(3):
        for rows in (masks[image, 0:1], masks[image, 1:3], masks[image, 3:6]):
            total += torch.linalg.matrix_norm(rows @ rows.T - torch.eye(len(rows))).item() / 3 / 3
    assert mask_orthogonality(masks, (1, 2, 3), "raw").item() == pytest.approx(total, rel=1e-4)


def test_orthogonality_of_disjoint_masks_is_zero_with_a_finite_gradient() -> None:
    masks = torch.zeros(2, 3, 9)
    for part in range(3):
        masks[:, part, 3 * part : 3 * part + 3] = 1.0
    masks.requires_grad_()
    loss = mask_orthogonality(masks, (3,))
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert masks.grad is not None
    assert masks.grad.isfinite().all()


def test_health_tells_live_dead_and_copied_masks() -> None:
    masks = torch.rand(4, 6, 20)
    masks[:, 2] = 0.0
    masks[:, 5] = 2 * masks[:, 4]
    health = mask_health(masks, (1, 2, 3))
    assert health.live[2] == 0.0
    assert health.copies == [(4, 5)]
    words = " ".join(health.warnings())
    assert "mask 3 is dead" in words
    assert "masks 5 and 6 are copies" in words


def test_healthy_masks_raise_no_warning() -> None:
    masks = torch.zeros(2, 3, 9)
    for part in range(3):
        masks[:, part, 3 * part : 3 * part + 3] = 1.0
    health = mask_health(masks, (1, 2))
    assert health.warnings() == []
    assert health.overlap == 0.0
