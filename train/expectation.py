"""What a run can expect of its length, and what to do if it was too short to read anything."""

import time

from torch import Tensor

TIMED = 10  # steps after which the rest is estimated; the first of them, which sets things up, does not count
# A one-layer decoder reads 4 to 14 % of unseen words after 153,600 (docs/figures.md); numbers come much sooner
FIRST_READ = 100_000  # words shown before readers of a whole lexicon begin to get some right
WELL_READ = 5_000_000  # words shown before most are


def expectation(shown: int, options: str) -> str:
    """One line for the plan: how many words a run shows, against what readers want. `options` lengthen it."""
    text = f"this shows {shown:,} words; the first are read right after some {FIRST_READ:,}, most after millions"
    return f"{text}: far too few, raise {options}" if shown < FIRST_READ else text


def none_right(shown: int, options: str) -> str:
    """What to say after a run that read no held-out word right."""
    wanted = FIRST_READ if shown < FIRST_READ else WELL_READ
    more = f"show it {wanted:,} or more with {options}" if shown < WELL_READ else "check labels, pictures and --lr"
    return f"no held-out word was read right after {shown:,} words: {more}"


class Estimate:
    """How long the steps of a run that starts after step `first` take, judged by the first of them."""

    def __init__(self, first: int, steps: int) -> None:
        self._first, self._steps, self._spent = first, steps, 0.0

    def after(self, step: int, began: float, loss: Tensor) -> str:
        """Count the step that began then and gave this loss; a line to print after TIMED steps, otherwise empty."""
        number = step - self._first
        if number == TIMED:
            loss.item()  # a GPU has only been told what to do
        if 1 < number <= TIMED:
            self._spent += time.perf_counter() - began
        left = self._steps - step
        if number != TIMED or not left:
            return ""
        return f"the remaining {left:,} steps take about {duration(self._spent / (TIMED - 1) * left)}"


def duration(seconds: float) -> str:
    """A time to wait, roughly.

    >>> [duration(s) for s in (7, 100, 5000, 10000)]
    ['7 s', '2 min', '83 min', '3 h']
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
