"""What the training loop and those who run it tell each other: how long, what a batch has, how it went."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch

from train.ranks import Ranks


class Labelled(Protocol):
    """Words of a batch."""

    @property
    def labels(self) -> list[str]: ...


class Numbered(Protocol):
    """A batch: as long as it has words."""

    @property
    def number(self) -> int:
        """Of this batch in the run, from 0."""

    @property
    def words(self) -> "Labelled":
        """What the batch's labels can be had from, if it comes to that."""

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Pace:
    """How long a run is and on what it runs."""

    steps: int
    eval_every: int
    device: torch.device
    precision: str
    seed: int = 0
    ema: float = 0.0  # decay of the average of weights that is evaluated and kept as best; 0: the weights themselves
    ranks: Ranks = Ranks()  # noqa: RUF009 (frozen)


@dataclass(frozen=True)
class Found:
    """An evaluation: figures for the log, the ones that choose the best checkpoint, a line for a person, and each
    held-out word with what was read.
    """

    scores: dict[str, float]
    rank: tuple[float, ...]  # larger is better
    text: str
    readings: list[tuple[str, str]]


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0  # done
    drawn: int = 0  # batches taken
    loss: float = math.nan  # mean since the last report
    seconds: float = 0.0  # of training, evaluations left out
    waiting: float = 0.0  # of these, seconds in which no batch was ready
    words: int = 0
    best_step: int = 0
    best_rank: tuple[float, ...] | None = None  # of the best checkpoint
    best_scores: dict[str, float] | None = None
