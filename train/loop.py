"""The training loop that pre-training and fine-tuning share: steps, reports, evaluations, checkpoints."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cache.errors import DptrError
from machine import autocast
from train.run import Run

LOG_EVERY = 50  # steps between lines of metrics.jsonl
CLIP_NORM = 20.0
WARM_UP = 0.075  # share of all steps: 1.5 of 20 epochs

Batch = TypeVar("Batch", bound=Sized)  # as long as it has words


@dataclass(frozen=True)
class Pace:
    """How long a run is and on what it runs."""

    steps: int
    eval_every: int
    device: torch.device
    precision: str


@dataclass(frozen=True)
class Found:
    """An evaluation: figures for the log, the ones that choose the best checkpoint, and a line for a person."""

    scores: dict[str, float]
    rank: tuple[float, ...]  # larger is better
    text: str


@dataclass
class Progress:
    """How far a run has come."""

    loss: float = math.nan  # mean since the last report
    seconds: float = 0.0  # of training, evaluations left out
    waiting: float = 0.0  # of these, seconds in which no batch was ready
    words: int = 0
    best_step: int = 0
    best: Found | None = None  # of the best checkpoint


class Loop:
    """One run's training. Each group of `groups` has `params` and `peak`, its highest learning rate."""

    def __init__(self, name: str, model: nn.Module, groups: list[dict[str, Any]], pace: Pace, run: Run) -> None:
        self.name, self.model, self.pace, self.run = name, model, pace, run
        if pace.device.type == "cpu":
            # governs the CPU's flash kernel too, whose backward pass takes five times as long as plain attention
            torch.backends.cuda.enable_flash_sdp(False)
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=0.0, fused=True)
        self.progress = Progress()

    def train(
        self, batches: Iterator[Batch], loss: Callable[[Batch], Tensor], evaluate: Callable[[], Found]
    ) -> Progress:
        """All steps. Raises DptrError, naming the step, when the loss is not finite."""
        steps, every = self.pace.steps, self.pace.eval_every
        losses: list[Tensor] = []
        began, seen, waited = time.perf_counter(), 0, 0.0
        with tqdm(total=steps, desc=self.name, unit="step", delay=2) as bar:
            for step in range(1, steps + 1):
                asked = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - asked
                losses.append(self.step(step, loss, batch))
                seen += len(batch)
                bar.update()
                evaluating = step % every == 0 or step == steps
                if evaluating or step % LOG_EVERY == 0:
                    self._report(step, losses, seen, time.perf_counter() - began, waited, bar)
                    if evaluating:
                        self._evaluate(step, evaluate, bar)
                    began, seen, waited, losses = time.perf_counter(), 0, 0.0, []
        return self.progress

    def step(self, step: int, loss: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
        """One step, counted from 1; returns the loss without waiting for the device."""
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = one_cycle(step - 1, self.pace.steps, group["peak"])
        with autocast(self.pace.device, self.pace.precision):
            value = loss(batch)
        self.optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()
        return value.detach()

    def _report(self, step: int, losses: list[Tensor], seen: int, seconds: float, waited: float, bar: Any) -> None:
        self.progress.loss = float(torch.stack(losses).mean())  # the only place that waits for the device
        if not math.isfinite(self.progress.loss):
            raise DptrError(
                f"the loss is {self.progress.loss} at step {step}: lower --lr, or use --precision fp32. "
                f"Checkpoints of before are in {self.run.folder}."
            )
        self.progress.seconds += seconds
        self.progress.waiting += waited
        self.progress.words += seen
        rate = self.optimizer.param_groups[-1]["lr"]
        figures = {"loss": self.progress.loss, "lr": rate, "words_per_second": seen / seconds}
        self.run.log(step, "train", {**figures, "waiting": waited / seconds})
        bar.set_postfix_str(
            f"loss {self.progress.loss:.3f}, {seen / seconds:,.0f} words/s, waiting {waited / seconds:.0%}",
            refresh=False,
        )

    def _evaluate(self, step: int, evaluate: Callable[[], Found], bar: Any) -> None:
        self.model.eval()
        found = evaluate()
        self.run.log(step, "held_out", found.scores)
        bar.write(f"step {step:,}: loss {self.progress.loss:.3f}, held out: {found.text}", file=sys.stderr)
        self.run.save("last.pt", self.model, step, found.scores)
        best = self.progress.best
        if best is None or found.rank >= best.rank:
            self.progress.best, self.progress.best_step = found, step
            self.run.save("best.pt", self.model, step, found.scores)


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
