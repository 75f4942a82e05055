"""Pre-trained backbone weights: a file by path, or torchvision's ImageNet weights by URL with their hash."""

import urllib.error
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from training.errors import CheckpointError
from training.model.config import BackboneConfig
from training.model.foreign import read_tensors, split_resnet, why_unfit
from training.model.ibn import split_batch_norms
from training.model.timm_backbone import TimmBackbone, load_timm_weights

# The hash in the name is the start of the file's SHA-256; torch.hub checks it.
IMAGENET_URLS = {
    18: "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    34: "https://download.pytorch.org/models/resnet34-b627a593.pth",
    50: "https://download.pytorch.org/models/resnet50-0676ba61.pth",
}


def load_backbone_weights(backbone: nn.Module, config: BackboneConfig, source: str) -> dict[str, Tensor]:
    """Fill a backbone from `source`: "imagenet", or the path of a .safetensors or .pth file.

    A ResNet takes torchvision's names behind any prefix, with IBN-a also those of its authors; a timm model takes
    timm's. The trunk must fit completely. Returns the tensors that were not taken, such as a classifier.
    Pickled files are read with weights_only=True, so they cannot run code. Raises CheckpointError.
    """
    if isinstance(backbone, TimmBackbone):
        load_timm_weights(backbone, config, source)
        return {}
    tensors = _imagenet(config) if source == "imagenet" else read_tensors(Path(source))
    return fit_resnet(backbone, config, tensors, source)


def fit_resnet(
    backbone: nn.Module, config: BackboneConfig, tensors: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Fill a ResNet from a table that has one; returns the rest. Raises CheckpointError if it does not fit."""
    trunk, others = split_resnet(tensors)
    own = {name: tensor for name, tensor in backbone.state_dict().items() if not name.startswith("between.")}
    if config.ibn and not any(".IN." in name for name in trunk):
        trunk = split_batch_norms(trunk, own)
    counters = {name for name in own if name.endswith("num_batches_tracked")}  # old files lack them
    missing = sorted(own.keys() - trunk.keys() - counters)
    unknown = sorted(trunk.keys() - own.keys())
    shapes = sorted(name for name in own.keys() & trunk.keys() if own[name].shape != trunk[name].shape)
    if missing or unknown or shapes:
        raise CheckpointError(
            f"{source} does not fit {config.name} ({len(missing)} tensors missing, {len(unknown)} unknown, "
            f"{len(shapes)} of another shape, such as {(missing + unknown + shapes)[0]}): "
            f"{why_unfit(trunk, own, others)}"
        )
    backbone.load_state_dict(trunk, strict=False)
    return others


def _imagenet(config: BackboneConfig) -> dict[str, Tensor]:
    if config.width != 1.0 or config.stride_at != "conv2" or config.stem_pool != "padded":
        raise CheckpointError('"imagenet" weights exist for width 1, stride_at conv2 and stem_pool padded only')
    url = IMAGENET_URLS[config.depth]
    try:
        state: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", check_hash=True, weights_only=True
        )
    except (urllib.error.URLError, RuntimeError, OSError) as error:
        raise CheckpointError(
            f"cannot download {url} ({error}); fetch it on a machine with a network and pass model.weights=PATH"
        ) from None
    return state
