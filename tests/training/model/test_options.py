"""IBN-a and the GeM global branch against the literal forms of their papers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from training.config import load_config
from training.errors import CheckpointError
from training.model import PAN, VARIANTS, BackboneConfig
from training.model.backbone import ResNet
from training.model.ibn import InstanceBatchNorm
from training.model.parts import GeneralisedMean
from training.model.weights import load_backbone_weights

SMALL = BackboneConfig(depth=18, width=0.25)


def test_ibn_is_instance_norm_on_the_first_half_and_batch_norm_on_the_rest() -> None:
    torch.manual_seed(0)
    norm = InstanceBatchNorm(10).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 10, 6, 4, dtype=torch.float64) * 3 + 1
    got = norm(x)
    for channel in range(10):
        own = norm.IN if channel < 5 else norm.BN
        scale, shift = own.weight[channel % 5], own.bias[channel % 5]
        for image in range(3):
            seen = x[image, channel] if channel < 5 else x[:, channel]
            literal = (x[image, channel] - seen.mean()) / torch.sqrt(seen.var(unbiased=False) + 1e-5)
            torch.testing.assert_close(got[image, channel], literal * scale + shift)


def test_ibn_a_stands_where_its_authors_put_it() -> None:
    """The names in resnet50_ibn_a of IBN-Net: bn1 of every block of stages 1 to 3, half of its planes each."""
    with torch.device("meta"):
        state = ResNet(BackboneConfig(ibn=True)).state_dict()
    instance = {name: tuple(tensor.shape) for name, tensor in state.items() if name.endswith("IN.weight")}
    expected = {
        f"layer{stage}.{block}.bn1.IN.weight": (planes // 2,)
        for stage, blocks, planes in ((1, 3, 64), (2, 4, 128), (3, 6, 256))
        for block in range(blocks)
    }
    assert instance == expected
    assert state["layer2.1.bn1.BN.running_var"].shape == (64,)
    assert BackboneConfig(ibn=True).name == "resnet50-ibn-a"


def test_ibn_a_takes_weights_with_it_and_splits_those_without(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ibn = SMALL.model_copy(update={"ibn": True})
    plain, source, target = ResNet(SMALL), ResNet(ibn), ResNet(ibn)
    for norm in (module for module in plain.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.normal_(norm.weight)
    save_file(plain.state_dict(), tmp_path / "plain.safetensors")
    load_backbone_weights(target, ibn, str(tmp_path / "plain.safetensors"))
    taken = target.state_dict()
    both = torch.cat([taken["layer3.1.bn1.IN.weight"], taken["layer3.1.bn1.BN.weight"]])
    assert torch.equal(both, plain.state_dict()["layer3.1.bn1.weight"])
    assert torch.equal(taken["layer4.0.bn1.weight"], plain.state_dict()["layer4.0.bn1.weight"])
    save_file(source.state_dict(), tmp_path / "ibn.safetensors")
    load_backbone_weights(target, ibn, str(tmp_path / "ibn.safetensors"))
    assert all(torch.equal(tensor, target.state_dict()[name]) for name, tensor in source.state_dict().items())
    with pytest.raises(CheckpointError, match=r"unknown.*model\.ibn"):
        load_backbone_weights(plain, SMALL, str(tmp_path / "ibn.safetensors"))


def test_gem_is_the_generalised_mean_with_its_gradient() -> None:
    torch.manual_seed(0)
    gem = GeneralisedMean().double()
    x = (torch.rand(2, 5, 6, 4, dtype=torch.float64) * 4 + 0.1).requires_grad_()
    literal = x.pow(gem.p).mean((2, 3)).pow(1 / gem.p)
    got = gem(x)[:, :, 0]
    torch.testing.assert_close(got.detach(), literal.detach(), rtol=1e-6, atol=0)
    upstream = torch.randn_like(literal)
    expected = torch.autograd.grad(literal, [x, gem.p], upstream)
    torch.testing.assert_close(torch.autograd.grad(got, [x, gem.p], upstream), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(GeneralisedMean(1.0).double()(x)[:, :, 0], x.mean((2, 3)), rtol=1e-6, atol=0)


def test_gem_does_not_overflow_float16_and_a_dead_channel_stays_finite() -> None:
    x = torch.rand(1, 3, 24, 8, generator=torch.Generator().manual_seed(0)) * 500
    x[:, 2] = 0
    gem = GeneralisedMean()
    torch.testing.assert_close(gem(x.half()).float(), gem(x), rtol=2e-3, atol=1e-3)
    assert gem(x)[0, 2].item() < 1e-3


@pytest.mark.parametrize("variant", ["pan_c", "baseline_w", "conv_c", "global_bnneck"])
def test_the_global_branch_is_a_further_part_of_any_variant(variant: str) -> None:
    torch.manual_seed(0)
    with_gem = VARIANTS[variant].model_copy(update={"backbone": SMALL, "gem": True})
    network = PAN(with_gem).eval()
    local = VARIANTS[variant].parts
    image = torch.randn(2, 3, 96, 48)
    features = network(image)
    assert with_gem.parts == local + 1
    assert features.embedding_BIE.shape[1] == local + 1
    assert features.mask_BIN.shape[1] == local  # what the orthogonality of the masks is about
    assert network.describe(image).shape == (2, network.embedding_size)
    blocks = network.backbone(image)
    part_BCI, mask_BIN = network.pooled_parts(blocks)
    torch.testing.assert_close(part_BCI[:, :, -1], blocks[3].clamp_min(1e-4).pow(3).mean((2, 3)).pow(1 / 3))
    assert (mask_BIN[:, -1] == 1).all()


def test_the_settings_reach_the_network() -> None:
    network = load_config(None, ["model.ibn=true", "model.gem=true"]).model.network()
    assert (network.backbone.ibn, network.gem, network.parts) == (True, True, 7)
    assert not VARIANTS["pan_c"].gem
