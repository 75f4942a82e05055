"""Checkpoints: the weights as a safetensors file with metadata, and the state for resuming a run.

`model.safetensors` contains the network for export; its header contains a `Card`. `resume.pt` also contains optimiser
and classifiers; it is read with weights_only=True, so that it cannot run code.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from bundle import Calibration, Evaluation, InputSpec, Provenance
from bundle.manifest import StrictModel
from training.errors import CheckpointError
from training.model import PAN, NetworkConfig

HEADER = "pan_reid"


class Card(StrictModel):
    """Metadata of a checkpoint: enough to rebuild the network, and its provenance."""

    variant: str
    network: NetworkConfig
    input: InputSpec
    provenance: Provenance
    evaluation: Evaluation | None = None
    calibration: Calibration | None = None


def save_checkpoint(path: Path, network: PAN, card: Card) -> None:
    """Write weights and card atomically as one safetensors file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    _replace(path, lambda file: save_file(tensors, file, metadata={HEADER: card.model_dump_json()}))


def load_checkpoint(path: Path) -> tuple[PAN, Card]:
    """Read a checkpoint (a .safetensors file, or the folder of a run) -> network in eval mode, and its card.

    Raises CheckpointError with the problem of the file.
    """
    card, tensors = read_checkpoint(path)
    network = PAN(card.network)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {path} do not fit the network of its card: {error}") from None
    return network.eval(), card


def read_checkpoint(path: Path) -> tuple[Card, dict[str, Tensor]]:
    """Card and tensors of a checkpoint. Raises CheckpointError with the problem of the file."""
    path = checkpoint_file(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}; `pan-train run` writes RUN/model.safetensors")
    try:
        header = _header(path)
        if header is None:
            raise CheckpointError(f"{path} was not written by pan-train: its header has no card")
        return Card.model_validate_json(header), load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a complete safetensors file ({error}); copy it again") from None
    except ValidationError as error:
        raise CheckpointError(f"{path} was written by another version ({error.error_count()} fields differ)") from None


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a run's folder or a file with a card, not a file of another program."""
    if path.is_dir():
        return True
    try:
        return path.suffix == ".safetensors" and _header(path) is not None
    except (SafetensorError, OSError):
        return False


def checkpoint_file(path: Path) -> Path:
    """The checkpoint of a run's folder; a file is itself."""
    return path / "model.safetensors" if path.is_dir() else path


def _header(path: Path) -> str | None:
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get(HEADER)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and strings in nested dicts and lists, atomically."""
    _replace(path, lambda file: torch.save(state, file))


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote. Raises CheckpointError."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # truncated zip, foreign pickle, wrong type
        raise CheckpointError(f"{path} cannot be resumed ({error}); start the run in a new folder") from None
    return state


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    temporary.chmod(0o644)  # safetensors writes with mode 0600; another user may run the export
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)


def weights_of(network: PAN) -> dict[str, Tensor]:
    """All tensors of the network that affect an embedding, by name, on the CPU."""
    return {
        name: tensor.detach().cpu()
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
