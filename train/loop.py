"""The training loop: steps, reports, evaluations on held-out words, checkpoints."""

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from cache.errors import DptrError
from machine import autocast
from train.batches import MemoryLoader, Words, epoch_batches
from train.decoder import Decoder
from train.evaluate import read_memories
from train.options import PretrainOptions, Resolved
from train.permutations import draw_permutations
from train.perturbation import Perturbation
from train.run import Run
from train.score import score

LOG_EVERY = 50  # steps between lines of metrics.jsonl
CLIP_NORM = 20.0
WARM_UP = 0.075  # share of all steps: 1.5 of 20 epochs


@dataclass
class Progress:
    """How far a run has come."""

    loss: float = math.nan  # mean since the last report
    seconds: float = 0.0  # of training, evaluations left out
    words: int = 0
    best_step: int = 0
    best: dict[str, float] | None = None  # scores of the best checkpoint


class Loop:
    """One run's training."""

    def __init__(
        self,
        decoder: Decoder,
        loader: MemoryLoader,
        perturbation: Perturbation | None,
        options: PretrainOptions,
        resolved: Resolved,
        run: Run,
    ) -> None:
        self.decoder, self.loader, self.perturbation = decoder, loader, perturbation
        self.options, self.resolved, self.run = options, resolved, run
        self.optimizer = torch.optim.AdamW(decoder.parameters(), lr=resolved.lr, weight_decay=0.0, fused=True)
        self.progress = Progress()

    def train(self, training: Words, held_out: Words) -> Progress:
        """All steps. Raises DptrError, naming the step, when the loss is not finite."""
        steps, every = self.resolved.steps, self.resolved.eval_every
        batches = self._batches(training)
        losses: list[Tensor] = []
        began, seen = time.perf_counter(), 0
        with tqdm(total=steps, desc="pretrain", unit="step", delay=2) as bar:
            for step in range(1, steps + 1):
                words = next(batches)
                losses.append(self.step(step, words))
                seen += len(words)
                bar.update()
                evaluating = step % every == 0 or step == steps
                if evaluating or step % LOG_EVERY == 0:
                    self._report(step, losses, seen, time.perf_counter() - began, bar)
                    if evaluating:
                        self._evaluate(step, held_out, bar)
                    began, seen, losses = time.perf_counter(), 0, []
        return self.progress

    def step(self, step: int, words: Words) -> Tensor:
        """One step, counted from 1; returns the loss without waiting for the device."""
        self.decoder.train()
        for group in self.optimizer.param_groups:
            group["lr"] = one_cycle(step - 1, self.resolved.steps, self.resolved.lr)
        memory, mask = self.loader.load(words)
        if self.perturbation:
            memory = self.perturbation(memory)
        targets = self.decoder.charset.encode(words.labels).to(memory.device)
        orders = draw_permutations(targets.shape[1] - 2, self.options.permutations).to(memory.device)
        with autocast(self.resolved.device, self.resolved.precision):
            loss = self.decoder.loss(memory, mask, targets, orders)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.decoder.parameters(), CLIP_NORM)
        self.optimizer.step()
        return loss.detach()

    def _batches(self, words: Words) -> Iterator[Words]:
        epoch = 0
        while True:
            yield from epoch_batches(words, self.options.batch, self.options.seed, epoch)
            epoch += 1

    def _report(self, step: int, losses: list[Tensor], seen: int, seconds: float, bar: Any) -> None:
        self.progress.loss = float(torch.stack(losses).mean())  # the only place that waits for the device
        if not math.isfinite(self.progress.loss):
            raise DptrError(
                f"the loss is {self.progress.loss} at step {step}: lower --lr, or use --precision fp32. "
                f"Checkpoints of before are in {self.run.folder}."
            )
        self.progress.seconds += seconds
        self.progress.words += seen
        rate = one_cycle(step - 1, self.resolved.steps, self.resolved.lr)
        figures = {"loss": self.progress.loss, "lr": rate, "words_per_second": seen / seconds}
        self.run.log(step, "train", figures)
        bar.set_postfix_str(f"loss {self.progress.loss:.3f}, {seen / seconds:,.0f} words/s", refresh=False)

    def _evaluate(self, step: int, held_out: Words, bar: Any) -> None:
        texts = read_memories(self.decoder, self.loader, held_out, self.resolved.precision)
        result = score(held_out.labels, texts)
        scores = {name: value for name, value in asdict(result).items() if name != "words"}
        self.run.log(step, "held_out", scores)
        bar.write(f"step {step:,}: loss {self.progress.loss:.3f}, held out: {result}", file=sys.stderr)
        self.run.save("last.pt", self.decoder, step, scores)
        best = self.progress.best
        if best is None or (scores["ignoring_case"], scores["ned"]) >= (best["ignoring_case"], best["ned"]):
            self.progress.best, self.progress.best_step = scores, step
            self.run.save("best.pt", self.decoder, step, scores)


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
