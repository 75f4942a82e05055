"""Backbones of timm under PLM and PAM: trained, exported with parity, and what is refused. Nothing is downloaded."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from export.bundles.exporter import export_checkpoint
from training.config import load_config
from training.errors import CheckpointError, ConfigError
from training.model import PAN
from training.model.weights import load_backbone_weights
from training.trainer import Trainer

try:
    import timm
except (ImportError, RuntimeError) as error:
    pytest.skip(f"timm cannot be loaded: {error}", allow_module_level=True)

SWIN = {"img_size": [64, 32], "embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
MODELS: dict[str, dict[str, Any]] = {
    "resnet10t": {"output_stride": 16},
    "convnext_atto": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]},
    "swin_tiny_patch4_window7_224": SWIN,
}
RUN = [
    "preset=short", "data.height=64", "data.width=32", "threads=1", "sampler.identities=2", "sampler.crops=2",
    "optim.iterations=4", "model.gem=true",
]  # fmt: skip


def network(name: str, *more: str) -> PAN:
    torch.manual_seed(0)
    config = load_config(None, [f"model.timm={name}", f"model.timm_options={MODELS[name]}", *more])
    return PAN(config.model.network())


@pytest.mark.parametrize("name", MODELS)
def test_the_last_four_feature_maps_are_those_of_timm(name: str) -> None:
    """Against timm's own model, which has hooks or lists of its own."""
    backbone = network(name).backbone.eval()
    whole = timm.create_model(name, num_classes=0, **MODELS[name]).eval()
    whole.load_state_dict(backbone.model.model.state_dict(), strict=False)
    image = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        expected = whole.forward_intermediates(image, intermediates_only=True)[-4:]
        blocks = backbone(image)
    assert backbone.channels == [block.shape[1] for block in blocks]
    for block, wanted in zip(blocks, expected, strict=True):
        torch.testing.assert_close(block, wanted)


@pytest.mark.parametrize("name", MODELS)
def test_a_run_trains_it_and_a_bundle_holds_it_with_parity(name: str, market: Path, tmp_path: Path) -> None:
    options = [f"model.timm={name}", f"model.timm_options={MODELS[name]}", f"data.path={market}"]
    trainer = Trainer(load_config(None, [*RUN, *options]), tmp_path / "run", Console(file=io.StringIO()))
    before = {key: tensor.clone() for key, tensor in trainer.learner.network.backbone.named_parameters()}
    trainer.run()
    after = dict(trainer.learner.network.backbone.named_parameters())
    assert [key for key in before if not torch.equal(before[key], after[key])]
    found = export_checkpoint(tmp_path / "run", tmp_path / "bundle")  # raises ParityError below the float32 gate
    (file,) = found.manifest.files
    assert file.parity.cosine_min > 0.9999
    assert (found.manifest.model.backbone, found.manifest.model.parts) == (name, 7)


def test_weights_of_a_file_are_taken_by_name(tmp_path: Path) -> None:
    filled = network("resnet10t")
    source = timm.create_model("resnet10t", output_stride=16)  # with its classifier
    save_file(source.state_dict(), tmp_path / "timm.safetensors")
    load_backbone_weights(filled.backbone, filled.config.backbone, str(tmp_path / "timm.safetensors"))
    taken = filled.backbone.model.model.state_dict()
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in taken.items())
    with pytest.raises(CheckpointError, match="timm cannot load"):
        load_backbone_weights(filled.backbone, filled.config.backbone, str(tmp_path / "none.safetensors"))
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"does not fit resnet10t: \d+ tensors missing, such as model\."):
        load_backbone_weights(filled.backbone, filled.config.backbone, str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model.timm=convnext_tiiny"], "convnext_tiiny is unknown; did you mean convnext_tiny"),
        (["model.timm=resnet10t", "model.width=0.5"], "model.timm replaces the ResNet"),
        (["model.timm=resnet10t", "model.timm_options={colour: red}"], "does not give four feature maps"),
        (["model.timm=resnet10t", "model.variant=nl"], "non-local blocks"),
        (["model.timm=resnet10t", "model.variant=conv_c"], "output_stride: 16"),
    ],
)
def test_unsupported_timm_models_are_refused_with_an_alternative(settings: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PAN(load_config(None, settings).model.network())
