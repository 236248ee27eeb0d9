"""The processes that work together, started by `torchrun ... cli.py COMMAND ...`; usually just one.

In training, each rank takes its share of every batch, and gradients are averaged while they are computed
(DistributedDataParallel). In reading, each takes its share of the batches. Only rank 0 writes files and prints.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import zip_longest
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from cache.errors import WrongUse

Item = TypeVar("Item")
PATIENCE = timedelta(hours=12)  # how long other ranks wait while rank 0 evaluates or encodes


@dataclass(frozen=True)
class Ranks:
    """The rank of this process, the number of ranks, and how many of them are on this machine."""

    rank: int = 0
    size: int = 1
    here: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all ranks, on each of them; its shape must agree. Does not wait for a GPU."""
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

    def each(self, value: Any) -> list[Any]:
        """The values of all ranks, on each of them."""
        values = [value] * self.size
        if self.size > 1:
            distributed.all_gather_object(values, value)
        return values

    def leave(self) -> None:
        """Leave the process group, so that processes exit without waiting for each other."""
        if self.size > 1:
            distributed.destroy_process_group()

    def wrapped(self, model: nn.Module, loss: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """`loss`, wrapped so that its backward pass averages the gradients of `model` over all ranks."""
        return loss if self.size == 1 else DistributedDataParallel(_Loss(model, loss))


ALONE = Ranks()


def in_turn(shares: Sequence[Sequence[Sequence[Item]]]) -> list[Item]:
    """What is in all batches, in their order; `shares` are each rank's batches, of which the ranks have one in turn."""
    return [one for batches in zip_longest(*shares, fillvalue=()) for batch in batches for one in batch]


class _Loss(nn.Module):
    """DistributedDataParallel needs the loss to be a module's forward pass."""

    def __init__(self, model: nn.Module, loss: Callable[[Any], Any]) -> None:
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self, batch: Any) -> Any:
        if len(batch):
            return self._loss(batch)
        # other ranks have all words of this batch, and wait for gradients of all weights
        nothing = torch.stack([p.flatten()[0] * 0 for p in self.model.parameters() if p.requires_grad]).sum()
        return nothing, torch.zeros((), dtype=torch.int64, device=nothing.device)


def silent(text: str) -> None:
    """Says nothing, as all ranks do but the first."""


def check_shared(batch: int, ranks: Ranks) -> None:
    """Raise WrongUse for a batch that has no word for some ranks."""
    if batch < ranks.size:
        raise WrongUse(f"a --batch of {batch} has not one word for each of {ranks.size} ranks: choose a larger one.")


def join(device: torch.device) -> tuple[Ranks, torch.device]:
    """This process's rank and device, from the environment that torchrun sets; without it, a single rank.

    With several GPUs, each rank takes the one numbered by its local rank. May be called again.
    """
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        return Ranks(), device
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return Ranks(distributed.get_rank(), size, int(os.environ.get("LOCAL_WORLD_SIZE", 1))), device
