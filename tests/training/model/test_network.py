"""The network against the paper's parameter counts and the literal form of its equations."""

import pytest
import torch
import torch.nn.functional as F

from training.config import OptimConfig
from training.model import PAN, VARIANTS, BackboneConfig
from training.model.attention import PartAttention, _QueryAndPool
from training.model.backbone import NonLocal
from training.model.parts import PartScale, Stripes, pool_parts
from training.trainer.optimizer import make_optimizer

# millions of parameters without training classifiers: what the paper prints in Table 2
PAPER = {
    "baseline": 27.8,
    "baseline_w": 29.2,
    "conv_a": 35.2,
    "conv_c": 32.3,
    "pan_a_128": 32.5,
    "pan_a": 33.5,
    "pan_a_wide": 36.6,
    "pan_c_128": 33.0,
    "pan_c": 33.9,
    "pan_c_wide": 37.0,
    "nl": 30.5,
    "pan_c_nl": 36.7,
}


@pytest.mark.parametrize("variant", PAPER)
def test_parameter_counts_are_the_papers(variant: str) -> None:
    with torch.device("meta"):
        network = PAN(VARIANTS[variant])
    tolerance = 0.25 if variant == "baseline_w" else 0.15
    assert network.parameter_count() / 1e6 == pytest.approx(PAPER[variant], abs=tolerance)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_gives_unit_descriptors_of_its_size(variant: str) -> None:
    torch.manual_seed(0)
    small = VARIANTS[variant].model_copy(update={"backbone": BackboneConfig(depth=18, width=0.25)})
    network = PAN(small).eval()
    descriptor = network.describe(torch.randn(3, 3, 96, 48))
    assert descriptor.shape == (3, network.embedding_size)
    torch.testing.assert_close(descriptor.norm(dim=1), torch.ones(3))


def test_paper_descriptor_has_1536_numbers() -> None:
    with torch.device("meta"):
        assert PAN(VARIANTS["pan_c"]).embedding_size == 1536


def test_block_shapes_are_the_papers() -> None:
    with torch.device("meta"):
        blocks = PAN(VARIANTS["pan_c"]).backbone(torch.empty(1, 3, 384, 128))
    assert [tuple(x.shape[1:]) for x in blocks] == [(256, 96, 32), (512, 48, 16), (1024, 24, 8), (2048, 24, 8)]


@pytest.mark.parametrize("out_channels", [24, 40])
def test_part_attention_is_equation_3(out_channels: int) -> None:
    """The literal form: 1x1 convolutions of X, the D x N and O x N maps stored, products left to right."""
    torch.manual_seed(0)
    pam = PartAttention(part_channels=40, channels=24, dim=16, out_channels=out_channels).double()
    part_BCI = torch.randn(2, 40, 6, dtype=torch.float64, requires_grad=True)
    x_BChw = torch.randn(2, 24, 12, 5, dtype=torch.float64, requires_grad=True)
    phi_BID = F.conv1d(part_BCI, pam.phi.weight[:, :, None]).transpose(1, 2)
    psi_BDN = F.conv2d(x_BChw, pam.psi.weight[:, :, None, None]).flatten(2)
    f_BNO = F.conv2d(x_BChw, pam.f.weight[:, :, None, None]).flatten(2).transpose(1, 2)
    literal_BIO = phi_BID @ psi_BDN @ f_BNO / 60
    got_BIO = pam(part_BCI, x_BChw).transpose(1, 2)
    torch.testing.assert_close(got_BIO, literal_BIO)
    upstream = torch.randn_like(literal_BIO)
    inputs = [part_BCI, x_BChw, *pam.parameters()]
    literal = torch.autograd.grad(literal_BIO, inputs, upstream, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(got_BIO, inputs, upstream), literal)
    torch.testing.assert_close(pam.compatibility(part_BCI, x_BChw.flatten(2)), phi_BID @ psi_BDN)


def test_part_pooling_is_the_average_of_the_masked_map() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 10, 6, 4, dtype=torch.float64, requires_grad=True)
    mask_BiN, channel_BC1 = PartScale(10, 3, affine=False).double().eval()(x)
    assert torch.autograd.gradcheck(pool_parts, (x, mask_BiN.detach().requires_grad_()))
    got = pool_parts(x, mask_BiN) * channel_BC1
    for part in range(3):
        m = channel_BC1[:, :, :, None] * mask_BiN[:, part].view(2, 1, 6, 4)
        torch.testing.assert_close(got[:, :, part], F.adaptive_avg_pool2d(m * x, 1)[:, :, 0, 0])


def test_means_over_positions_do_not_overflow_float16() -> None:
    """At the size of the first block of 384 x 128 crops a sum ends far beyond 65,504 and its mean does not."""
    torch.manual_seed(0)
    exact_x = torch.rand(2, 6, 96, 32, dtype=torch.float64) * 200
    exact_mask = torch.rand(2, 3, 3072, dtype=torch.float64) * 4
    upstream = torch.randn(2, 6, 3, dtype=torch.float64) * 1e4
    results = []
    for dtype in (torch.float64, torch.float16):
        x, mask = (exact.to(dtype).requires_grad_() for exact in (exact_x, exact_mask))
        literal = (x[:, :, None].flatten(3) * mask[:, None]).sum(3) / 3072
        got = literal if dtype == torch.float64 else pool_parts(x, mask)
        results.append((got, *torch.autograd.grad(got, (x, mask), upstream.to(dtype))))
    assert results[0][0].max() * 3072 > 9 * 65_504
    for exact, half in zip(*results, strict=True):
        torch.testing.assert_close(half.double(), exact, rtol=5e-3, atol=float(exact.detach().abs().max()) * 2e-3)


def test_the_other_means_over_positions_do_not_overflow_float16_either() -> None:
    torch.manual_seed(0)
    query, x = torch.randn(1, 3, 4), torch.rand(1, 4, 96, 32) * 30
    exact = query.double() @ x.flatten(2).double() @ x.flatten(2).double().transpose(1, 2) / 3072
    got = _QueryAndPool.apply(query.half(), x.half())
    torch.testing.assert_close(got.transpose(1, 2).double(), exact, rtol=1e-2, atol=2)
    block = NonLocal(4).double().eval()
    torch.nn.init.ones_(block.norm.weight)
    for layer in (block.theta, block.out):
        torch.nn.init.normal_(layer.weight, std=0.02)
    torch.nn.init.eye_(block.phi.weight.data[:, :, 0, 0])
    torch.nn.init.eye_(block.g.weight.data[:, :, 0, 0])
    loud = torch.rand(1, 4, 96, 32, dtype=torch.float64) * 20
    exact = block(loud)
    torch.testing.assert_close(block.half()(loud.half()).double(), exact, rtol=1e-2, atol=0.5)


@pytest.mark.parametrize("parts", [1, 3, 5, 6])
def test_stripes_are_adaptive_average_pooling(parts: int) -> None:
    x = torch.randn(2, 7, 8, 4)
    mask, _ = Stripes(parts)(x)
    torch.testing.assert_close(pool_parts(x, mask), F.adaptive_avg_pool2d(x, (parts, 1))[..., 0])


def test_non_local_block_is_the_literal_dot_product_form() -> None:
    torch.manual_seed(0)
    block = NonLocal(8).double().eval()
    torch.nn.init.normal_(block.norm.weight)
    x = torch.randn(2, 8, 6, 4, dtype=torch.float64)
    small = F.max_pool2d(x, 2)
    theta, phi, g = block.theta(x).flatten(2), block.phi(small).flatten(2), block.g(small).flatten(2)
    attention_BNM = theta.transpose(1, 2) @ phi / phi.shape[2]
    y = (attention_BNM @ g.transpose(1, 2)).transpose(1, 2).reshape(2, 4, 6, 4)
    torch.testing.assert_close(block(x), x + block.norm(block.out(y)))


def test_masks_stay_live_for_any_weights() -> None:
    """Trap 1: a large step on the weights must not leave a mask that is zero everywhere."""
    torch.manual_seed(0)
    scale = PartScale(16, 3, affine=False).train()
    with torch.no_grad():
        for parameter in scale.spatial.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=10)
    mask_BiN, _ = scale(torch.randn(8, 16, 12, 4))
    assert ((mask_BiN > 0).float().mean((0, 2)) > 0.05).all()


def test_non_local_blocks_learn_at_the_rate_of_new_layers() -> None:
    small = VARIANTS["nl"].model_copy(update={"backbone": BackboneConfig(depth=18, width=0.25)})
    network = PAN(small)
    config = OptimConfig(lr=0.1, backbone_lr=0.01)
    groups = make_optimizer(network, torch.nn.Linear(1, 1), config, pretrained=True).param_groups
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert {rates[id(p)] for p in network.backbone.between.parameters()} == {0.1}
    assert rates[id(network.backbone.conv1.weight)] == 0.01
