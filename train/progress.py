"""How far a run has come, what an evaluation of it found, and which checkpoint is the best."""

import math
from dataclasses import dataclass

from train.reading.result import Reading

READS = 0.01  # accuracy below which what is read is chance


@dataclass(frozen=True)
class Found:
    """An evaluation: figures for the log, the rank that picks the best checkpoint, a line to print, all readings."""

    scores: dict[str, float]
    rank: tuple[float, ...]  # accuracy and 1-NED
    text: str
    readings: list[Reading]

    def ranked(self, loss: float) -> tuple[float, ...]:
        """What compares checkpoints, the larger the better; of equal ranks, the one with the lower training loss.

        Below an accuracy of READS the loss alone decides: 1-NED is that of chance there, and an early step may win.
        """
        rank = self.rank if self.rank[0] >= READS else (0.0,) * len(self.rank)
        return *rank, -loss


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0  # steps done
    drawn: int = 0  # batches taken
    loss: float = math.nan  # mean since the last report
    seconds: float = 0.0  # training time, without evaluations
    waiting: float = 0.0  # seconds of that time spent waiting for a batch
    words: int = 0
    best_step: int = 0
    best_rank: tuple[float, ...] | None = None  # of the best checkpoint
    best_scores: dict[str, float] | None = None
    unlabelled: int = 0  # pictures without labels that were read since the last evaluation
    sure: int = 0  # of those, readings that were learnt from
