"""The weights that a run starts from: of another run, or of a backbone; and a record of what was taken."""

import csv
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table
from torch import Tensor

from training.checkpoint import is_checkpoint, read_checkpoint
from training.errors import CheckpointError
from training.model import PAN, BackboneConfig
from training.model.timm_backbone import TimmBackbone
from training.model.weights import fit_resnet, load_backbone_weights

FILE = "weights.csv"
_NOT_OURS = "not part of this network"

Modules = dict[str, dict[str, Tensor]]  # module -> name -> tensor


@dataclass(frozen=True, slots=True)
class Transferred:
    """One module of the network or of the file, the numbers in its weights, and why it was not taken."""

    module: str
    numbers: int
    taken: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class WarmStart:
    """What a network took from `source`, with the licence notes of the run that trained it."""

    source: str
    modules: tuple[Transferred, ...]
    licence_notes: str = ""

    def save(self, folder: Path) -> None:
        """Write the table to `weights.csv` in the folder of a run."""
        with (folder / FILE).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["module", "numbers", "taken", "reason"])
            writer.writeheader()
            writer.writerows(asdict(module) for module in self.modules)

    def table(self) -> Table:
        """The same for a terminal."""
        table = Table(title=f"weights from {self.source}", title_justify="left")
        for column in ("module", "numbers", "taken", "if not, why"):
            table.add_column(column, justify="right" if column == "numbers" else "left")
        for module in self.modules:
            table.add_row(module.module, f"{module.numbers:,}", "yes" if module.taken else "no", module.reason)
        return table


def warm_start(network: PAN, source: str) -> WarmStart:
    """Fill a network from `source`, in place: a run, its checkpoint, "imagenet", or a file with a backbone.

    The backbone must fit completely. Of a run, each other module is taken if all its tensors have the same names and
    shapes, whatever the variant; the rest stays as it is. Raises CheckpointError.
    """
    config, own = network.config.backbone, _by_module(network.state_dict(), _module)
    if source == "imagenet" or not is_checkpoint(Path(source)):
        others = _by_module(load_backbone_weights(network.backbone, config, source), _outer)
        reasons = {name: "" if name == "backbone" else "not in the file" for name in own}
        return WarmStart(source, _rows(own, reasons, others))
    card, tensors = read_checkpoint(Path(source))
    theirs = _by_module(tensors, _module)
    reasons = {name: _misfit(module, theirs.get(name)) for name, module in own.items()}
    if isinstance(network.backbone, TimmBackbone):
        if reasons["backbone"]:
            raise CheckpointError(f"{source} does not fit {config.name}: {reasons['backbone']}")
    else:
        _check_forward(card.network.backbone, config, source)
        trunk = {name.removeprefix("backbone."): tensor for name, tensor in theirs["backbone"].items()}
        fit_resnet(network.backbone, config, trunk, source)  # it says what to set, and splits norms for IBN-a
        reasons["backbone"] = ""
    fitting = [theirs[name] for name, reason in reasons.items() if not reason and name != "backbone"]
    if isinstance(network.backbone, TimmBackbone):
        fitting.append(theirs["backbone"])
    for module in fitting:
        network.load_state_dict(module, strict=False)
    others = {name: module for name, module in theirs.items() if name not in own}
    return WarmStart(source, _rows(own, reasons, others), card.provenance.licence_notes)


def _check_forward(theirs: BackboneConfig, ours: BackboneConfig, source: str) -> None:
    """Two settings that no tensor shows."""
    for name in ("stride_at", "stem_pool"):
        if getattr(theirs, name) != getattr(ours, name):
            raise CheckpointError(f"{source} was trained with {name}={getattr(theirs, name)}; set model.{name} to it")


def _rows(own: Modules, reasons: Mapping[str, str], others: Modules) -> tuple[Transferred, ...]:
    rows = [Transferred(name, _numbers(own[name]), not reason, reason) for name, reason in reasons.items()]
    return (*rows, *(Transferred(name, _numbers(module), False, _NOT_OURS) for name, module in others.items()))


def _by_module(tensors: Mapping[str, Tensor], module_of: Callable[[str], str]) -> Modules:
    modules: Modules = {}
    for name, tensor in tensors.items():
        modules.setdefault(module_of(name), {})[name] = tensor
    return modules


def _module(name: str) -> str:
    """What is taken or left as a whole: `backbone`, `backbone.between.0`, `parts.scales.0`, `pams.1`, `embedding`."""
    if name.startswith("backbone.") and not name.startswith("backbone.between."):
        return "backbone"
    first, *rest = name.split(".")
    number = next((index for index, part in enumerate(rest) if part.isdigit()), None)
    return first if number is None else ".".join([first, *rest[: number + 1]])


def _outer(name: str) -> str:
    """The first two words of another program's name, without that of the tensor: `fc`, `heads.bottleneck`."""
    return ".".join(name.split(".")[:-1][:2]) or name


def _misfit(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor] | None) -> str:
    """Why a module cannot be taken; an empty string if it can."""
    if theirs is None:
        return "not in the file"
    for name, tensor in own.items():
        if name not in theirs:
            return f"{name} is not in the file"
        if theirs[name].shape != tensor.shape:
            there, here = ("x".join(map(str, shape)) for shape in (theirs[name].shape, tensor.shape))
            return f"{name} is {there} in the file and {here} here"
    return ""


def _numbers(module: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for name, tensor in module.items() if not name.endswith("num_batches_tracked"))
