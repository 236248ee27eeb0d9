"""What a run can expect of its length, and what to do if it was too short to read anything."""

import time
from dataclasses import dataclass

from torch import Tensor

from cache.fingerprint import Fingerprint

TIMED = 10  # steps after which the rest is estimated; the first of them, which sets things up, does not count


@dataclass(frozen=True)
class Wanted:
    """How many words are shown to readers of a whole lexicon before they get the first unseen ones right, and most."""

    first: int
    most: int


# Whose spelling must be learnt by heart: one layer reads 4 to 14 % after 153,600 (docs/figures.md)
PIECES = Wanted(100_000, 5_000_000)
# Of which each row is a character in its context: one layer reads 98 % after 38,400
CHARACTERS = Wanted(10_000, 100_000)


def wanted(fingerprint: Fingerprint | None) -> Wanted:
    """Of memories or tokens that this encoder gives; None is any other."""
    if fingerprint and fingerprint.untrained_seed is None and fingerprint.tokenizer.startswith("characters "):
        return CHARACTERS
    return PIECES


def expectation(shown: int, options: str, of: Wanted = PIECES) -> str:
    """One line for the plan: how many words a run shows, against what readers want. `options` lengthen it."""
    text = f"this shows {shown:,} words; the first are read right after some {of.first:,}, most after {of.most:,}"
    return f"{text}: far too few, raise {options}" if shown < of.first else text


def none_right(shown: int, options: str, of: Wanted = PIECES) -> str:
    """What to say after a run that read no held-out word right."""
    least = of.first if shown < of.first else of.most
    more = f"show it {least:,} or more with {options}" if shown < of.most else "check labels, pictures and --lr"
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
