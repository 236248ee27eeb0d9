"""The processes that train one model together, as `torchrun ... cli.py pretrain ...` starts them; usually only one.

Each rank takes its share of every batch; gradients are averaged while they are computed (DistributedDataParallel).
Rank 0 alone writes and speaks.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

PATIENCE = timedelta(hours=12)  # for the others while rank 0 evaluates


@dataclass(frozen=True)
class Ranks:
    """Which of how many this process is."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks of tensors of one shape, on each of them; does not wait for a GPU."""
        if self.size > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def agree(self, value: Any) -> Any:
        """Rank 0's value, on each of them."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]

    def leave(self) -> None:
        """End the group, so that processes end without waiting for each other."""
        if self.size > 1:
            distributed.destroy_process_group()

    def wrapped(self, model: nn.Module, loss: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """`loss`, after whose backward pass every rank has the mean of all ranks' gradients of `model`."""
        return loss if self.size == 1 else DistributedDataParallel(_Loss(model, loss))


class _Loss(nn.Module):
    """DistributedDataParallel wants the loss to be a module's forward pass."""

    def __init__(self, model: nn.Module, loss: Callable[[Any], Any]) -> None:
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self, batch: Any) -> Any:
        return self._loss(batch)


def join(device: torch.device) -> tuple[Ranks, torch.device]:
    """This process's rank and device, from what torchrun put into the environment; one rank without it.

    Of several GPUs a rank takes the one of its number on this machine.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        return Ranks(), device
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return Ranks(distributed.get_rank(), size), device
