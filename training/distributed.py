"""One process or several: everything that `torchrun` changes about a run.

Every process draws the same batch, works on its own share of the identities, and makes the same update. Gradients
meet in DistributedDataParallel; numbers, embeddings and decisions meet on the CPU, over gloo.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.errors import ConfigError

Item = TypeVar("Item")
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class World:
    """The processes of a run, and which of them this one is. One process alone communicates nothing."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients that are averaged over the processes."""
        return DistributedDataParallel(module) if self.size > 1 else module

    def no_sync(self, module: nn.Module) -> AbstractContextManager[None]:
        """Around a forward and backward pass whose gradients wait for the next pass to be averaged."""
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()

    def mean(self, values: Tensor) -> Tensor:
        """Mean of each number over the processes, on the CPU."""
        values = values.detach().cpu()
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return flag if self.size == 1 else self.mean(torch.tensor(float(flag))).item() > 0

    def broadcast_buffers(self, module: nn.Module) -> None:
        """Give every process the first one's batch-norm statistics."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    def shard(self, items: Sequence[Item]) -> list[Item]:
        """This process's part of a list, as long in every process: the list begins again where it is too short."""
        each = -(-len(items) // self.size)
        return [items[index % len(items)] for index in range(self.rank, each * self.size, self.size)]

    def gather_rows(self, rows_nD: Floats, count: int) -> Floats | None:
        """Rows of the shares of `count` items, in the order of the items, in the first process; None in the others."""
        if self.size == 1:
            return rows_nD
        mine = torch.from_numpy(rows_nD)
        parts = [torch.empty_like(mine) for _ in range(self.size)] if self.is_main else None
        dist.gather(mine, parts)
        return None if parts is None else torch.stack(parts, 1).flatten(0, 1)[:count].numpy()

    def broadcast(self, value: Item) -> Item:
        """The first process's value, in every process."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, 0, device=torch.device("cpu"))
        return held[0]


SINGLE_PROCESS = World()


def init_process_group(device: str) -> tuple[World, torch.device]:
    """Meet the other processes where torchrun started several; say which device is this one's. Raises ConfigError."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return SINGLE_PROCESS, _device(device)
    if ":" in device:
        raise ConfigError(f"device={device} names one GPU for all {size} processes; use device=cuda or auto")
    chosen = _device(device)
    if chosen.type == "cuda":
        local, here = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= here:
            raise ConfigError(f"process {local} has no GPU of its own: this machine has {here}; lower --nproc-per-node")
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    return World(dist.get_rank(), size), chosen


def shutdown() -> None:
    """Part from the other processes, where there are any."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name!r} is unknown; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda was asked for and this PyTorch finds no CUDA GPU; use device=cpu or auto")
    return device
