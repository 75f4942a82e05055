"""Distributed training with `torchrun`.

Every process draws the same batch, computes its shard of the identities, and makes the same update.
DistributedDataParallel averages the gradients; metrics, embeddings and decisions are exchanged on the CPU over gloo.
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
    """Rank and number of the processes of a run. With one process, every method works without communication."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the process that writes and prints."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """Wrap the module so that its gradients are averaged over the processes."""
        return DistributedDataParallel(module) if self.size > 1 else module

    def no_sync(self, module: nn.Module) -> AbstractContextManager[None]:
        """Context manager: accumulate gradients without averaging them over the processes."""
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()

    def mean(self, values: Tensor) -> Tensor:
        """Mean of each number over the processes, on the CPU."""
        values = values.detach().cpu()
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag if self.size == 1 else self.mean(torch.tensor(float(flag))).item() > 0

    def broadcast_buffers(self, module: nn.Module) -> None:
        """Copy the buffers (batch-norm statistics) of rank 0 to all processes."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    def shard(self, items: Sequence[Item]) -> list[Item]:
        """This process's shard of a list. All shards have the same length: items are repeated where needed."""
        each = -(-len(items) // self.size)
        return [items[index % len(items)] for index in range(self.rank, each * self.size, self.size)]

    def gather_rows(self, rows_nD: Floats, count: int) -> Floats | None:
        """Gather the rows of all shards of `count` items, in order, on rank 0; None in the other processes."""
        if self.size == 1:
            return rows_nD
        mine = torch.from_numpy(rows_nD)
        parts = [torch.empty_like(mine) for _ in range(self.size)] if self.is_main else None
        dist.gather(mine, parts)
        return None if parts is None else torch.stack(parts, 1).flatten(0, 1)[:count].numpy()

    def broadcast(self, value: Item) -> Item:
        """The value of rank 0, in every process."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, 0, device=torch.device("cpu"))
        return held[0]


SINGLE_PROCESS = World()


def init_process_group(device: str) -> tuple[World, torch.device]:
    """Join the process group if torchrun started several processes, and choose the device. Raises ConfigError."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return SINGLE_PROCESS, choose_device(device)
    if ":" in device:
        raise ConfigError(f"device={device} names one GPU for all {size} processes; use device=cuda or auto")
    chosen = choose_device(device)
    if chosen.type == "cuda":
        local, here = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= here:
            raise ConfigError(f"there is no GPU for process {local}: this machine has {here}; lower --nproc-per-node")
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    return World(dist.get_rank(), size), chosen


def shutdown() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def choose_device(name: str) -> torch.device:
    """The device of a setting: auto, cpu, cuda or cuda:N. Raises ConfigError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {name!r} is unknown; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda: PyTorch finds no CUDA GPU; use device=cpu or auto")
    return device
