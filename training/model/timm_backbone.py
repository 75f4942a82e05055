"""Any backbone of timm with four stages or more under the same part learning and attention (extra [timm]).

Shapes: B batch, C_l channels and h_l x w_l positions of block l.
"""

import difflib
from typing import Any

import torch
from torch import Tensor, nn

from bundle import InputSpec
from bundle.extras import pip_install
from training.errors import CheckpointError, ConfigError
from training.model.config import BackboneConfig


class TimmBackbone(nn.Module):
    """The last four stages of a timm model as X1 to X4."""

    between = None  # non-local blocks cannot be put between the stages of a timm model

    def __init__(self, config: BackboneConfig) -> None:
        """Random weights. Raises ConfigError if timm is not installed or refuses the name or the options."""
        super().__init__()
        self.model = _create(config)
        self.channels: list[int] = self.model.feature_info.channels()
        self.strides: list[int] = self.model.feature_info.reduction()  # pixels of the image a position, by block

    def forward(self, image_B3HW: Tensor) -> list[Tensor]:
        """Normalised image -> [X1, X2, X3, X4], each (B, C_l, h_l, w_l)."""
        return list(self.model(image_B3HW))


def load_timm_weights(backbone: TimmBackbone, config: BackboneConfig, source: str) -> None:
    """Fill the backbone from `source`: "imagenet" (timm downloads its weights for this name), or a file of them.

    Raises CheckpointError if timm cannot read or fit them.
    """
    given = {} if source == "imagenet" else {"pretrained_cfg_overlay": {"file": source}}
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        random = _create(config)
        torch.manual_seed(0)
        try:
            filled = _create(config, pretrained=True, **given)
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"timm cannot load {source} into {config.timm}: {error}") from None
    kept = [
        name
        for name, parameter in random.named_parameters()
        if parameter.ndim > 1 and torch.equal(parameter, filled.get_parameter(name))
    ]
    if kept:  # timm skips what does not fit
        raise CheckpointError(f"{source} does not fit {config.timm}: {len(kept)} tensors missing, such as {kept[0]}")
    usual, own = InputSpec(height=16, width=16), filled.model.pretrained_cfg
    if source == "imagenet" and (tuple(own["mean"]), tuple(own["std"])) != (usual.mean, usual.std):
        raise CheckpointError(
            f"the weights of {config.timm} expect pixels of mean {own['mean']} and deviation {own['std']}, not "
            f"{usual.mean} and {usual.std}; choose another model or another tag of its weights"
        )
    backbone.model.load_state_dict(filled.state_dict())


def _create(config: BackboneConfig, **more: Any) -> Any:
    """The timm model as a list of its last four feature maps, each (B, C, h, w)."""
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision was built for another torch
        raise ConfigError(
            f"model.timm needs timm, which cannot be loaded ({error}); {pip_install('train', 'timm')}"
        ) from None
    name = config.timm or ""
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=1, cutoff=0.4)
        raise ConfigError(
            f"model.timm: {name} is unknown; " + (f"did you mean {near[0]}?" if near else "see timm.list_models()")
        )
    features = {"features_only": True, "feature_cls": "getter", "out_indices": (-4, -3, -2, -1)}
    try:
        return timm.create_model(name, **features, **config.timm_options, **more)
    except (TypeError, AssertionError, IndexError, AttributeError) as error:
        raise ConfigError(
            f"{name} with model.timm_options={config.timm_options} does not give four feature maps: {error}"
        ) from None
