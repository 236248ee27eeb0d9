"""What one update of the weights is made of: learning rate, averaged weights, and the share of the machine's rate."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.device import product_rate

WARM_UP = 0.075  # share of all steps: 1.5 of 20 epochs


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Learning rate at `step` of 0..steps - 1: cosine from peak / 25 to peak over the warm-up, then down to almost 0.

    Smith and Topin, arXiv 1708.07120, with the constants of torch.optim.lr_scheduler.OneCycleLR.
    """
    top = WARM_UP * steps - 1
    if step <= top:
        start, end, share = peak / 25, peak, step / top
    else:
        start, end, share = peak, peak / 25e4, (step - top) / (steps - 1 - top)
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


class Average:
    """`weights`, one tensor a parameter. At first it forgets faster: by (1 + step) / (10 + step) where that is less.

    torch's AveragedModel gives the same numbers, but each of its updates copies a counter to the device and waits for
    it, and what it evaluates is a copy of the model, where all else here holds on to the model itself.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._parameters: list[Tensor] = list(model.parameters())
        self.weights: list[Tensor] = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step`, counted from 1."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.weights, self._parameters, 1 - decay)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The model has the average for its weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, weight in zip(self._parameters, self.weights, strict=True):
            kept = parameter.clone()
            parameter.copy_(weight)
            weight.copy_(kept)


class Utilisation:
    """Counts the operations of a step now and then; the machine's rate is measured once, when it is first needed."""

    def __init__(self, device: torch.device, precision: str) -> None:
        self._device, self._dtype = device, torch.bfloat16 if precision == "bf16" else torch.float32
        self._operations: float | None = None  # a word
        self._rate: float | None = None

    @contextmanager
    def watch(self, counting: bool, words: int) -> Iterator[None]:
        """Around a step of so many words, whose operations are counted if `counting`."""
        if not counting:
            yield
            return
        with FlopCounterMode(display=False) as counter:
            yield
        self._operations = counter.get_total_flops() / words

    def share(self, words_per_second: float) -> float | None:
        """Of the machine's rate, from 0 to 1; None before a step was counted."""
        if self._operations is None:
            return None
        if self._rate is None:
            self._rate = product_rate(self._device, self._dtype, 0.3)
        return words_per_second * self._operations / self._rate
