"""Weights that other programs saved: finds the table of tensors in a file and the ResNet in the table.

MoCo and LUPerson save `state_dict` with the prefix `module.encoder_q.`, fast-reid `model` with `backbone.`; torchvision
and timm save neither.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from training.errors import CheckpointError

Tensors = Mapping[str, Tensor]

_BLOCK = re.compile(r"(layer[1-4]\.\d+)\.conv(\d)\.weight")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a file of torch.save. Cannot run code. Raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"no weights file at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as weights ({error})") from None
    except Exception as error:  # pickle.UnpicklingError and its kin: the file holds more than tensors
        raise CheckpointError(
            f"{path} is refused: it holds more than plain tensors ({error}); save its state_dict alone in a new file"
        ) from None
    tensors = _largest_table(state)
    if not tensors:
        raise CheckpointError(f"{path} holds a {type(state).__name__} without a table of tensors")
    return tensors


def _largest_table(state: Any) -> dict[str, Tensor]:
    """The mapping with the most tensors, however deep: beside it are an optimiser, a schedule, counters."""
    if not isinstance(state, Mapping):
        return {}
    own = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    return max([own, *map(_largest_table, state.values())], key=len)


def split_resnet(tensors: Tensors) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of the trunk under torchvision's names, without prefix; and everything else as it was.

    Of several ResNets in a table, such as a MoCo's encoder_q and encoder_k, it is the first. Without one, all tensors
    are the trunk, and fitting them says what is wrong.
    """
    heads = [match for name in tensors if (match := re.fullmatch(r"(.*?)layer1\.\d+\.conv\d\.weight", name))]
    prefix = heads[0][1] if heads else ""
    trunk = re.compile(re.escape(prefix) + r"((?:conv1|bn1|layer[1-4])\..*)")
    found = {match[1]: tensor for name, tensor in tensors.items() if (match := trunk.fullmatch(name))}
    return found, {name: tensor for name, tensor in tensors.items() if not trunk.fullmatch(name)}


def why_unfit(trunk: Tensors, own: Tensors, others: Tensors) -> str:
    """What to do if a trunk does not fit a network's own tensors, found from names and shapes."""
    names = [*trunk, *others]
    if not any(_BLOCK.fullmatch(name) for name in trunk):
        if any("attn" in name or "patch_embed" in name for name in names):
            return "it is a transformer; name that model by model.timm, or use weights of a ResNet"
        return f"there is no ResNet in it (its first tensor is {names[0]}); set model.timm to the model that it is of"
    if "conv1.weight" not in trunk:
        return "it has a stem of several convolutions; set model.timm to the model that it is of, such as resnet50d"
    if any(".se." in name or ".fc1." in name for name in trunk):
        return "its blocks have squeeze-and-excitation; set model.timm to the model that it is of"
    if any(".IN." in name for name in trunk) and not any(".IN." in name for name in own):
        return "it is an IBN-a ResNet; set model.ibn=true"
    depth, wanted = _depth(trunk), _depth(own)
    if depth != wanted:
        fix = f"set model.depth={depth}" if depth in (18, 34, 50) else "the depths here are 18, 34 and 50"
        return f"it is a ResNet-{depth}; {fix}"
    last = max(name for name in own if re.fullmatch(r"layer4\.0\.conv\d\.weight", name))
    if last in trunk and len(trunk[last]) != len(own[last]):
        width = len(trunk[last]) / (2048 if depth == 50 else 512)
        return f"its width is {width:g}; set model.width={width:g}"
    inner = "layer1.0.conv2.weight"
    if inner in trunk and trunk[inner].shape != own[inner].shape:
        return "its 3x3 convolutions have another width (a ResNeXt or a wide ResNet); set model.timm to that model"
    return "set model.depth, model.width, model.ibn, model.stride_at and model.stem_pool to those of the file"


def _depth(trunk: Tensors) -> int:
    """Layers of a ResNet: the convolutions of its blocks, the stem and the classifier."""
    found = [match for name in trunk if (match := _BLOCK.fullmatch(name))]
    return 2 + len({match[1] for match in found}) * max((int(match[2]) for match in found), default=0)
