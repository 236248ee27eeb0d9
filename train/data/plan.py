"""The order of an epoch: which words go into which batch, a function of seed and epoch alone, whatever the ranks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW = 64  # batches in a window, within which words are sorted by length so that batches need little padding
Window = int | Callable[[int], int]  # that number, or what gives it for a size of batch
Order = Callable[[np.random.Generator], NDArray[np.int64]]


@dataclass(frozen=True)
class Plan:
    """How an epoch's words are split into batches of similar length: a function of these fields and the epoch alone.

    `batch` is the number of words in a step. Of each batch, every one of `ranks` processes takes its share; shares
    differ by a word at most, and some of the last batch of an epoch may be empty. What is in a batch does not depend on
    the number of ranks, so a run may go on with another one.

    A run may go on with another `batch`, too: `before` is the plan that it had, and how many batches it took from that.
    Then the rest of the epoch that was begun is cut anew, so that none of its words is left out or seen again.
    """

    batch: int
    seed: int
    rank: int = 0
    ranks: int = 1
    before: "tuple[Plan, int] | None" = None

    def count(self, words: int) -> int:
        """Number of batches in a whole epoch."""
        return -(-words // self.batch)

    def place(self, number: int, words: int, window: Window = WINDOW) -> tuple[int, int]:
        """The epoch that has the run's batch `number`, and that batch's number in it; `window` as of `windows`."""
        if not self.before:
            return divmod(number, self.count(words))
        (plan, taken), lengths = self.before, np.zeros(words, np.int8)
        epoch, start = plan.place(taken, words, window)
        left = sum(len(batch) for some in plan._places(lengths, epoch, start, window) for batch in some)
        number, cut = number - taken, -(-left // self.batch)
        if number < cut:
            return epoch, number
        more, start = divmod(number - cut, self.count(words))
        return epoch + 1 + more, start

    def batches(self, lengths: NDArray[Any], epoch: int, start: int = 0) -> Iterator[NDArray[np.int64]]:
        """Yield this rank's share of an epoch's batches from number `start` on: indices (B,) into `lengths` (n,)."""
        for window in self.windows(lengths, epoch, start):
            yield from window

    def windows(
        self,
        lengths: NDArray[Any],
        epoch: int,
        start: int = 0,
        window: Window = WINDOW,
        order: Order | None = None,
    ) -> Iterator[list[NDArray[np.int64]]]:
        """Yield the same, `window` batches at a time; within a window, words are shuffled and sorted by length.

        `order` draws the order in which words are assigned to windows; without it, they are shuffled. With it, a rank's
        shares of a window are words that follow each other in that order, but for a few.
        """
        random = self._random(epoch, 0)
        drawn = order(random) if order else random.permutation(len(lengths))
        for batches in self._places(lengths[drawn], epoch, start, window):
            yield [drawn[self._share(batch, order is not None)] for batch in batches]

    def _share(self, batch: NDArray[np.int64], together: bool) -> NDArray[np.int64]:
        """This rank's part of a batch: every word of so many, or `together` those that come one after another."""
        if self.ranks == 1:
            return batch
        if together:
            return np.array_split(np.sort(batch), self.ranks)[self.rank]
        return batch[self.rank :: self.ranks]

    def _places(
        self, lengths: NDArray[Any], epoch: int, start: int, window: Window
    ) -> Iterator[list[NDArray[np.int64]]]:
        """Whole batches, as places (B,) in the order of the epoch; `lengths` (n,) are in that order."""
        n = len(lengths)
        if self.before:
            plan, taken = self.before
            begun, place = plan.place(taken, n, window)
            if epoch == begun:
                yield from _cut(plan._places(lengths, epoch, place, window), self.batch, start)
                return
        window = window if isinstance(window, int) else window(self.batch)
        size = window * self.batch
        for number in range(start // window, -(-n // size)):
            random = self._random(epoch, 1 + number)
            words = random.permutation(np.arange(number * size, min((number + 1) * size, n)))
            words = words[np.argsort(lengths[words], kind="stable")]
            batches = [words[k : k + self.batch] for k in range(0, len(words), self.batch)]
            places = random.permutation(len(batches))[max(0, start - number * window) :]
            if len(places):  # the last window may be short, and `start` beyond its end
                yield [batches[k] for k in places]

    def _random(self, *what: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, *what])))


def _cut(windows: Iterator[list[NDArray[np.int64]]], batch: int, start: int) -> Iterator[list[NDArray[np.int64]]]:
    """The words of these windows, in their order, in batches of another size, from number `start` on."""
    rest = np.empty(0, np.int64)
    for window in windows:
        words = np.concatenate([rest, *window])
        whole = len(words) // batch
        if whole > start:
            yield [words[n * batch : (n + 1) * batch] for n in range(start, whole)]
        start, rest = max(0, start - whole), words[whole * batch :]
    if len(rest) and not start:
        yield [rest]
