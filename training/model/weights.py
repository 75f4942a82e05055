"""Pre-trained backbone weights: a file by path, or torchvision's ImageNet weights by URL with their hash."""

import urllib.error
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from training.errors import CheckpointError
from training.model.config import BackboneConfig
from training.model.ibn import split_batch_norms
from training.model.timm_backbone import TimmBackbone, load_timm_weights

# The hash in the name is the start of the file's SHA-256; torch.hub checks it.
IMAGENET_URLS = {
    18: "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    34: "https://download.pytorch.org/models/resnet34-b627a593.pth",
    50: "https://download.pytorch.org/models/resnet50-0676ba61.pth",
}


def load_backbone_weights(backbone: nn.Module, config: BackboneConfig, source: str) -> None:
    """Fill a backbone from `source`: "imagenet", or the path of a .safetensors or .pth file.

    A ResNet takes torchvision's keys, with IBN-a also those of its authors; a timm model takes timm's. A classifier
    (`fc.*`) in the file is ignored; every other difference in names or shapes is an error.
    Pickled files are read with weights_only=True, so they cannot run code. Raises CheckpointError.
    """
    if isinstance(backbone, TimmBackbone):
        load_timm_weights(backbone, config, source)
        return
    tensors = _imagenet(config) if source == "imagenet" else _read(Path(source))
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    own = {name: tensor for name, tensor in backbone.state_dict().items() if not name.startswith("between.")}
    if config.ibn and not any(".IN." in name for name in tensors):
        tensors = split_batch_norms(tensors, own)
    counters = {name for name in own if name.endswith("num_batches_tracked")}  # old files lack them
    missing = sorted(own.keys() - tensors.keys() - counters)
    unknown = sorted(tensors.keys() - own.keys())
    shapes = [name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape]
    if missing or unknown or shapes:
        raise CheckpointError(
            f"{source} does not fit {config.name} ({len(missing)} tensors missing, {len(unknown)} unknown, "
            f"{len(shapes)} of another shape, such as {(missing + unknown + sorted(shapes))[0]}); "
            "set model.depth, model.width, model.ibn, model.stride_at and model.stem_pool to those of the file"
        )
    backbone.load_state_dict(tensors, strict=False)


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


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"no weights file at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as weights ({error})") from None
    except Exception as error:  # pickle.UnpicklingError and its kin: the file holds more than tensors
        raise CheckpointError(f"{path} is refused: it holds more than plain tensors ({error})") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not a table of tensors")
    return state
