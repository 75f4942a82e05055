"""Masks and compatibility maps against the literal form of the paper's equations, and as an exported program."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.model import PAN, VARIANTS, BackboneConfig, Explanation, explain


def small(variant: str) -> PAN:
    torch.manual_seed(0)
    config = VARIANTS[variant].model_copy(update={"backbone": BackboneConfig(depth=18, width=0.25)})
    return PAN(config).eval()


def literal_compatibility(network: PAN, image_B3HW: Tensor) -> list[Tensor]:
    """theta(P, X) = phi(P)^T psi(X) with P_j = AvgPool((c (x) s_j) * X4), every factor a tensor of its own."""
    *middle, x4_BChw = network.backbone(image_B3HW)
    parts = []
    for scale in network.parts.scales:
        spatial_Bihw, channel_BC11 = scale.spatial(x4_BChw), scale.channel(x4_BChw)
        for mask_Bhw in spatial_Bihw.unbind(1):
            parts.append((channel_BC11 * mask_Bhw[:, None] * x4_BChw).mean((2, 3)))
    part_BIC = torch.stack(parts, 1)
    maps = []
    for pam, x_BChw in zip(network.pams, middle, strict=True):
        phi_BID = part_BIC @ pam.phi.weight.T
        psi_BDhw = F.conv2d(x_BChw, pam.psi.weight[:, :, None, None])
        maps.append(torch.einsum("bid,bdhw->bihw", phi_BID, psi_BDhw))
    return maps


@pytest.mark.parametrize("variant", ["pan_a", "pan_c_nl"])
def test_maps_are_equation_2(variant: str) -> None:
    network, image_B3HW = small(variant).double(), torch.randn(2, 3, 96, 48, dtype=torch.float64)
    with torch.no_grad():
        found = explain(network, image_B3HW)
        literal = literal_compatibility(network, image_B3HW)
        torch.testing.assert_close(found.mask_BIhw.flatten(2), network.part_vectors(network.backbone(image_B3HW))[1])
    assert [tuple(theta.shape) for theta in found.compatibility] == [(2, 6, 24, 12), (2, 6, 12, 6), (2, 6, 6, 3)]
    torch.testing.assert_close(found.compatibility, literal)


@pytest.mark.parametrize(
    ("variant", "parts"), [("baseline_w", 6), ("conv_a", 6), ("stripes_3", 3), ("global_bnneck", 1)]
)
def test_a_variant_without_attention_has_masks_alone(variant: str, parts: int) -> None:
    found = explain(small(variant), torch.randn(1, 3, 96, 48))
    assert found.mask_BIhw.shape == (1, parts, 6, 3)
    assert found.compatibility == []


def test_it_exports_with_a_free_batch() -> None:
    class Explained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = small("pan_c").double()

        def forward(self, image: Tensor) -> Explanation:
            return explain(self.network, image)

    module, batch = Explained().eval(), {0: torch.export.Dim("batch")}
    program = torch.export.export(module, (torch.randn(2, 3, 64, 32, dtype=torch.float64),), dynamic_shapes=(batch,))
    image = torch.randn(5, 3, 64, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(image), module(image))
