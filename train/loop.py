"""The training loop that pre-training and fine-tuning share: steps, reports, evaluations, checkpoints.

Everything random in a step (permutations, perturbation, dropout) is a function of (seed, step, rank), and a checkpoint
holds the rest of the state. So a run that was stopped at any step continues as if it had not been.
"""

import math
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cache.errors import DptrError
from train.expectation import Estimate
from train.progress import Found, Progress
from train.recorder import Recorder
from train.step import Pace, Step, Utilisation
from train.stopping import Request, Stopped, stopping

LOG_EVERY = 50  # steps between lines of metrics.jsonl
COUNT_EVERY = {"cpu": LOG_EVERY, "cuda": 500}  # steps between those whose operations are counted, which makes them slow
COUNT_FIRST = 9  # steps before the first of them: a run that has not even ten is not slowed
AGREE_EVERY = {"cpu": 1, "cuda": 10}  # steps between checks whether any rank was asked to stop: a GPU is waited for
SAVE_EVERY = 500  # steps between checkpoints, if evaluations are further apart
EARLIER = ["(before the run was continued)"]  # stands for words that only an earlier process has seen


class Batch(Protocol):
    """What a step trains on; its length is its number of words."""

    @property
    def number(self) -> int:
        """The number of this batch in the run, from 0."""

    @property
    def labels(self) -> Iterable[str]:
        """Its words, kept until the next report so that the error for a loss that is not finite can name them."""

    def __len__(self) -> int: ...


B = TypeVar("B", bound=Batch)
Loss = Callable[[B], tuple[Tensor, Tensor]]  # the mean loss over a batch's predictions, and their number


@dataclass
class _Since:
    """What happened since the last report."""

    losses: list[Tensor]
    labels: list[Iterable[str]]
    began: float
    seen: int = 0
    waited: float = 0.0


class Loop:
    """Trains one run. `groups` are the optimizer's parameter groups, and `drawn` is for steps that are replayed: `Step`
    takes both.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        groups: list[dict[str, Any]],
        pace: Pace,
        run: Recorder,
        drawn: Callable[[Any], Any] | None = None,
    ) -> None:
        self.name, self.model, self.pace, self.run, self.ranks = name, model, pace, run, pace.ranks
        self.step = Step(model, groups, pace, drawn)
        self._compiled = any(m._compiled_call_impl is not None for m in model.modules())
        self.progress = Progress()
        self._since = _Since([], [], 0.0)
        self._last: Iterable[str] = EARLIER
        self._utilisation = Utilisation(pace.device, pace.precision)
        if run.state:
            self._restore(run.state)

    def train(
        self, batches: Callable[[int], Generator[B, None, None]], loss: Loss[B], evaluate: Callable[[], Found]
    ) -> Progress:
        """Take the remaining steps; `batches(n)` gives the run's batches from number n on.

        Raises DptrError, naming the step, its words and the last checkpoint, if the loss is not finite; Stopped, after
        writing a checkpoint, if a signal asked the run to stop.
        """
        steps, every = self.pace.last, self.pace.eval_every
        compute = self.ranks.wrapped(self.model, loss)
        since, progress = self._since, self.progress
        show = {"total": steps, "initial": progress.step, "desc": self.name, "unit": "step", "delay": 2}
        with (
            tqdm(**show, disable=None if self.ranks.first else True) as bar,
            stopping() as request,
            closing(batches(progress.drawn)) as coming,
        ):
            since.began, estimate = time.perf_counter(), Estimate(progress.step, steps)
            while progress.step < steps:
                asked = time.perf_counter()
                try:
                    with request.interrupting(self.ranks.size == 1):
                        batch = next(coming)
                except InterruptedError:
                    if progress.step:
                        self._save()
                    raise self._stopped(request) from None
                since.waited += time.perf_counter() - asked
                every_so_many = COUNT_EVERY.get(self.pace.device.type, LOG_EVERY)
                counting = progress.step % every_so_many == COUNT_FIRST and len(batch) > 0
                with self._as_written(counting), self._utilisation.watch(counting, len(batch)):
                    since.losses.append(self.step(progress.step + 1, compute, batch, not counting))
                since.labels.append(batch.labels)
                self._last = batch.labels
                since.seen += len(batch)
                progress.step, progress.drawn = progress.step + 1, batch.number + 1
                bar.update()
                step = progress.step
                if (left := estimate.after(step, asked, since.losses[-1])) and self.ranks.first:
                    bar.write(left, file=sys.stderr)
                evaluating = step % every == 0 or step == steps
                if evaluating or step % LOG_EVERY == 0:
                    self._report(bar)
                if evaluating:
                    self._evaluate(evaluate, bar)
                if evaluating or step % SAVE_EVERY == 0:
                    self._save()
                if self._asked(request) and step < steps:
                    self._save()
                    self.ranks.agree(None)  # that it is saved: torchrun ends the others as soon as one has ended
                    raise self._stopped(request)
                if evaluating:
                    since.began = time.perf_counter()
        best = progress.best_step, progress.best_rank, progress.best_scores
        progress.best_step, progress.best_rank, progress.best_scores = self.ranks.agree(best)
        return progress

    def _stopped(self, request: Request) -> Stopped:
        done = f"stopped at step {self.progress.step:,} of {self.pace.last:,}"
        return Stopped(f"{done}: run the same command to continue.", request.signal)

    def _report(self, bar: Any) -> None:
        since, step = self._since, self.progress.step
        losses = self._means()
        seconds = time.perf_counter() - since.began
        for n, value in enumerate(losses):
            if not math.isfinite(value):
                raise self._not_finite(step - len(losses) + n + 1, value, since.labels[n])
        seen = self._seen()
        self.progress.loss = math.fsum(losses) / len(losses)
        self.progress.seconds += seconds
        self.progress.waiting += since.waited
        self.progress.words += seen
        figures = {"loss": self.progress.loss, "lr": self.step.rate, "words_per_second": seen / seconds}
        figures |= {"waiting": since.waited / seconds}
        text = f"loss {self.progress.loss:.3f}, {seen / seconds:,.0f} words/s, waiting {since.waited / seconds:.0%}"
        share = self._utilisation.share(since.seen / seconds)
        if share is not None:
            figures["utilisation"] = share
            text += f", {share:.0%} of the machine's matmul rate"
        self.run.log(step, "train", figures)
        bar.set_postfix_str(text, refresh=False)
        self._since.losses, self._since.labels = [], []
        self._since.seen, self._since.waited, self._since.began = 0, 0.0, time.perf_counter()

    def _seen(self) -> int:
        """Words since the last report, those of all ranks."""
        return int(self.ranks.sum(torch.tensor(self._since.seen, device=self.pace.device)))

    def _means(self) -> list[float]:
        """The losses since the last report, averaged over all ranks. This is where training waits for the device."""
        return (
            (self.ranks.sum(torch.stack(self._since.losses)) / self.ranks.size).tolist() if self._since.losses else []
        )

    def _not_finite(self, step: int, value: float, labels: Iterable[str]) -> DptrError:
        some = [repr(label) for label in islice(labels, 21)]
        words = ", ".join(some[:20]) + (" and others" if len(some) > 20 else "")
        last = self.run.newest()
        kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        return DptrError(
            f"the loss is {value} at step {step}, on the words {words}: lower --lr, or use --precision fp32; {kept}."
        )

    def _evaluate(self, evaluate: Callable[[], Found], bar: Any) -> None:
        self.model.eval()
        step, progress = self.progress.step, self.progress
        average = self.step.average
        with average.shown() if average else nullcontext(), self._as_written():
            found = evaluate()  # of which each rank has its share, and all of it in the end
            if not self.ranks.first:
                return
            self.run.log(step, "held_out", found.scores)
            bar.write(f"step {step:,}: loss {progress.loss:.3f}, held out: {found.text}", file=sys.stderr)
            rank = found.ranked(progress.loss)
            if progress.best_rank is None or rank >= progress.best_rank:
                progress.best_rank, progress.best_scores, progress.best_step = rank, found.scores, step
                self.run.save_best(self.model, step, found.scores, found.readings)

    def _as_written(self, now: bool = True) -> AbstractContextManager[Any]:
        """A context in which layers run as they are written, even if they were compiled for training."""
        return torch.compiler.set_stance("force_eager") if now and self._compiled else nullcontext()

    def _save(self) -> None:
        losses, seen = self._means(), self._seen()
        if not self.ranks.first:
            return
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise self._not_finite(self.progress.step, math.nan, self._last)
        training = {
            **self.step.state(),
            "progress": asdict(self.progress),
            "losses": losses,
            "seen": seen,
        }
        self.run.save(self.model, self.progress.step, self.progress.best_scores or {}, training)

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        training = state["training"]
        self.step.restore(training)
        self.progress = Progress(**training["progress"])
        losses = [torch.tensor(value, device=self.pace.device) for value in training["losses"]]
        self._since = _Since(losses, [EARLIER] * len(losses), 0.0, training["seen"] * self.ranks.first)

    def _asked(self, request: Request) -> bool:
        """Whether to stop now. All ranks stop at the same step, whichever of them was asked."""
        if self.ranks.size == 1:
            return bool(request.signal)
        if self.progress.step % AGREE_EVERY.get(self.pace.device.type, 1):
            return False
        asked = self.ranks.sum(torch.tensor(request.signal, device=self.pace.device))
        request.signal = request.signal or (signal.SIGTERM if int(asked) else 0)
        return bool(request.signal)
