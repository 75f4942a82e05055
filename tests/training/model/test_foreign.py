"""Backbones in files of other programs: unwrapping, and the errors on unfit files."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from training.errors import CheckpointError
from training.model import BackboneConfig
from training.model.backbone import ResNet
from training.model.weights import load_backbone_weights

SMALL = BackboneConfig(depth=18, width=0.25)


def trunk(config: BackboneConfig = SMALL, seed: int = 1) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return ResNet(config).state_dict()


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


HEAD = {"weight": torch.zeros(3, 2), "bias": torch.zeros(3)}
OPTIMIZER = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
# program -> what it saves, and the modules that are left
FILES: dict[str, tuple[Any, set[str]]] = {
    "torchvision": (OrderedDict(trunk() | prefixed("fc.", HEAD)), {"fc.weight", "fc.bias"}),
    "timm": ({"state_dict": trunk() | prefixed("fc.", HEAD), "epoch": 3, "arch": "resnet18"}, {"fc.weight", "fc.bias"}),
    "fast-reid": (
        {
            "model": prefixed("backbone.", trunk())
            | prefixed("heads.bottleneck.0.", HEAD)
            | {"pixel_mean": torch.zeros(3)},
            "optimizer": OPTIMIZER,
            "iteration": 7,
        },
        {"heads.bottleneck.0.weight", "heads.bottleneck.0.bias", "pixel_mean"},
    ),
    "MoCo": (
        {
            "state_dict": prefixed("module.encoder_q.", trunk())
            | prefixed("module.encoder_k.", trunk(seed=2))
            | {"module.queue": torch.zeros(2, 8)},
            "optimizer": OPTIMIZER,
        },
        {*prefixed("module.encoder_k.", trunk()), "module.queue"},
    ),
    "DataParallel": (prefixed("module.", trunk()), set()),
    "without counters": ({name: each for name, each in trunk().items() if "num_batches" not in name}, set()),
}


@pytest.mark.parametrize("program", FILES)
def test_the_backbone_is_found_in_files_of_other_programs(program: str, tmp_path: Path) -> None:
    saved, left = FILES[program]
    torch.save(saved, tmp_path / "weights.pth")
    backbone = ResNet(SMALL)
    others = load_backbone_weights(backbone, SMALL, str(tmp_path / "weights.pth"))
    assert set(others) == left
    for name, tensor in trunk().items():
        assert torch.equal(backbone.state_dict()[name], tensor), name


def without(tensors: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(start)}


SE = {"layer1.0.se.fc1.weight": torch.zeros(4, 4, 1, 1)}
DEEP_STEM = {"conv1.0.weight": torch.zeros(8, 3, 3, 3)}
LONG = {f"layer3.{block}.conv{number}.weight": torch.zeros(1) for block in range(2, 6) for number in (1, 2)}


@pytest.mark.parametrize(
    ("tensors", "advice"),
    [
        (trunk(BackboneConfig(depth=34, width=0.25)), r"it is a ResNet-34; set model\.depth=34"),
        (trunk(BackboneConfig(depth=50, width=0.25)), r"it is a ResNet-50; set model\.depth=50"),
        (trunk() | LONG, r"it is a ResNet-26; the depths here are 18, 34 and 50"),
        (trunk(BackboneConfig(depth=18, width=0.5)), r"its width is 0\.5; set model\.width=0\.5"),
        (trunk(BackboneConfig(depth=18, width=0.25, ibn=True)), r"set model\.ibn=true"),
        (without(trunk(), "conv1.") | DEEP_STEM, r"a stem of several convolutions; .* such as resnet50d"),
        (trunk() | SE, "squeeze-and-excitation"),
        ({"blocks.0.attn.qkv.weight": torch.zeros(3)}, r"it is a transformer; name that model by model\.timm"),
        ({"features.0.weight": torch.zeros(3)}, r"no ResNet in it \(its first tensor is features\.0\.weight\)"),
    ],
)
def test_an_error_on_an_unfit_file_names_its_contents(tensors: dict[str, Tensor], advice: str, tmp_path: Path) -> None:
    torch.save({"state_dict": tensors}, tmp_path / "weights.pth")
    backbone = ResNet(SMALL)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    with pytest.raises(CheckpointError, match=advice):
        load_backbone_weights(backbone, SMALL, str(tmp_path / "weights.pth"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_a_file_without_tensors_or_with_objects_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    torch.save({"state_dict": trunk(), "args": Path("run")}, tmp_path / "objects.pth")
    for name, message in (("none.pth", "without a table of tensors"), ("objects.pth", "save its state_dict alone")):
        with pytest.raises(CheckpointError, match=message):
            load_backbone_weights(ResNet(SMALL), SMALL, str(tmp_path / name))
