"""One update of the weights: learning rate, loss, gradients over all ranks, AdamW, and the moving average."""

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.device import autocast, differentiable_attention, product_rate, seed
from train.ranks import ALONE, Ranks
from train.replay import CudaGraphs, Replay

WARM_UP = 0.075  # fraction of all steps: 1.5 of 20 epochs
CLIP_NORM = 20.0
LEAST_APART = 10  # steps between evaluations, if none is asked for: one takes as long as several steps


@dataclass(frozen=True)
class Pace:
    """How long a run takes, and what it runs on."""

    steps: int  # if each of them has as many words as the next one
    eval_every: int
    device: torch.device
    precision: str
    seed: int = 0
    ema: float = 0.0  # decay of the moving average that is evaluated and kept as best; 0: the weights themselves
    ranks: Ranks = ALONE
    lead: float = 0.0  # steps that the run is further than their number says, because earlier ones had more words

    @property
    def last(self) -> int:
        """The number of the last step."""
        return math.ceil(self.steps - self.lead)

    def rate(self, step: int, peak: float) -> float:
        """The learning rate of step number `step`, from 1."""
        return one_cycle(min(step - 1 + self.lead, self.steps - 1), self.steps, peak)


def eval_every(asked: int | None, steps: int) -> int:
    """Steps between evaluations: as many as asked for or, of None, a tenth of all `steps`, LEAST_APART or more."""
    return asked or max(LEAST_APART, steps // 10)


class Step:
    """Updates the weights, one step per call. Each of `groups` has `params` and `peak`, its peak learning rate.

    Everything random in a step (permutations, perturbation, dropout) is a function of (seed, step, rank).
    """

    def __init__(
        self, model: nn.Module, groups: list[dict[str, Any]], pace: Pace, drawn: Callable[[Any], Any] | None = None
    ) -> None:
        """`drawn`, if given, adds to a batch whatever its loss draws on the CPU; then steps are recorded and replayed.

        See train/replay.py. Needs a GPU, and a single rank.
        """
        self.model, self.pace = model, pace
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=0.0, fused=True)
        self.average = Average(model, pace.ema) if pace.ema else None
        self._drawn, self._replay = drawn, None if drawn is None else Replay(self._gradients, CudaGraphs(pace.device))
        self._loss: Callable[[Any], tuple[Tensor, Tensor]] | None = None

    def __call__(
        self, step: int, loss: Callable[[Any], tuple[Tensor, Tensor]], batch: Any, recorded: bool = True
    ) -> Tensor:
        """Take step number `step`, from 1; returns this rank's part of the loss without waiting for the device.

        Without `recorded`, the step is computed as usual even if it could be replayed.
        """
        self.model.train()
        self._loss = loss
        seed(_seed(self.pace.seed, step, self.pace.ranks.rank), self.pace.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.pace.rate(step, group["peak"])
        if self._drawn:
            batch = self._drawn(batch)
        value = self._replay(batch) if self._replay and recorded else self._gradients(batch)
        self.optimizer.step()
        if self.average:
            self.average.update(step)
        return value

    def _gradients(self, batch: Any) -> Tensor:
        """The loss; leaves its gradients, clipped, in the parameters."""
        assert self._loss
        device, ranks = self.pace.device, self.pace.ranks
        with differentiable_attention(device), autocast(device, self.pace.precision):
            value, count = self._loss(batch)
        if ranks.size > 1:  # a mean of means would give words more weight on ranks with few predictions
            value = value * (count * ranks.size / ranks.sum(count).clamp(min=1))
        self.optimizer.zero_grad(set_to_none=self._replay is None)  # what is recorded writes to the same tensors again
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        return value.detach().float()

    @property
    def rate(self) -> float:
        """The learning rate of the last group at the last step."""
        return float(self.optimizer.param_groups[-1]["lr"])

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds besides the model's weights."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.weights if self.average else [],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of `state`; but peaks stay as they are, since another size of batch has others."""
        peaks = [group["peak"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, peak in zip(self.optimizer.param_groups, peaks, strict=True):
            group["peak"] = peak
        if self.average:
            for weight, saved in zip(self.average.weights, state["average"], strict=True):
                weight.copy_(saved)


def one_cycle(step: float, steps: int, peak: float) -> float:
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
    """The moving average of a model's weights: `weights`, one tensor per parameter.

    The decay is (1 + step) / (10 + step) where that is smaller, so that early weights are soon forgotten. torch's
    AveragedModel gives the same numbers, but each of its updates copies a counter to the device and waits for it, and
    it evaluates a copy of the model, whereas everything else here uses the model itself.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._parameters: list[Tensor] = list(model.parameters())
        self.weights: list[Tensor] = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after step number `step`, from 1, to the average."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.weights, self._parameters, 1 - decay)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """A context in which the model's weights are the average."""
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
    """What fraction of the machine's matmul rate training uses, from the operations that some steps are watched for.

    The machine's rate is measured once in a process, when it is first needed.
    """

    def __init__(self, device: torch.device, precision: str) -> None:
        self._device, self._dtype = device, torch.bfloat16 if precision == "bf16" else torch.float32
        self._operations: float | None = None  # per word

    @contextmanager
    def watch(self, counting: bool, words: int) -> Iterator[None]:
        """A context around a step of `words` words, whose operations are counted if `counting`."""
        if not counting:
            yield
            return
        with FlopCounterMode(display=False) as counter:
            yield
        self._operations = counter.get_total_flops() / words

    def share(self, words_per_second: float) -> float | None:
        """The fraction of the machine's rate, from 0 to 1; None until a step has been counted."""
        if self._operations is None:
            return None
        return words_per_second * self._operations / _machines_rate(self._device, self._dtype)


@cache
def _machines_rate(device: torch.device, dtype: torch.dtype) -> float:
    return product_rate(device, dtype, 0.1)


def _seed(*parts: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=7).digest(), "big")
