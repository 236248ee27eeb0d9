"""The order of an epoch: which words go into which batch, a function of seed, epoch and rank alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW = 64  # batches in a window, within which words are sorted by length so that batches need little padding


@dataclass(frozen=True)
class Plan:
    """How an epoch's words are split into batches of similar length: a function of these fields and the epoch alone.

    `batch` is the number of words that each of `ranks` processes takes in a step. Together they take the same batches
    as a single process with a `batch` of their total. If an order of blocks is given, though, each rank has its own
    share of the blocks, so that nothing is read twice. Up to `ranks - 1` words come twice, so that all ranks take the
    same number of steps.
    """

    batch: int
    seed: int
    rank: int = 0
    ranks: int = 1

    def count(self, words: int) -> int:
        """Number of batches in an epoch."""
        return -(-self._share(words) // self.batch)

    def batches(self, lengths: NDArray[Any], epoch: int, start: int = 0) -> Iterator[NDArray[np.int64]]:
        """Yield the batches of an epoch from number `start` on: indices (B,) into the words' `lengths` (n,)."""
        for window in self.windows(lengths, epoch, start):
            yield from window

    def windows(
        self,
        lengths: NDArray[Any],
        epoch: int,
        start: int = 0,
        window: int = WINDOW,
        order: Callable[[np.random.Generator], NDArray[np.int64]] | None = None,
    ) -> Iterator[list[NDArray[np.int64]]]:
        """Yield the same, `window` batches at a time; within a window, words are shuffled and sorted by length.

        `order` draws the order in which words are assigned to windows; without it, they are shuffled.
        """
        n = len(lengths)
        random = self._random(epoch, 0)
        drawn = order(random) if order else random.permutation(n)
        share, taken, first = np.resize(drawn, self._share(n) * self.ranks), self.batch * self.ranks, self.rank
        if order:
            share, taken, first = share.reshape(self.ranks, -1)[self.rank], self.batch, 0
        size, step = window * taken, taken // self.batch
        for number in range(start // window, -(-len(share) // size)):
            random = self._random(epoch, 1 + number)
            words = random.permutation(share[number * size : (number + 1) * size])
            words = words[np.argsort(lengths[words], kind="stable")]
            batches = [words[k : k + taken][first::step] for k in range(0, len(words), taken)]
            places = random.permutation(len(batches))[max(0, start - number * window) :]
            if len(places):  # the last window may be short, and `start` beyond its end
                yield [batches[k] for k in places]

    def _share(self, words: int) -> int:
        return -(-words // self.ranks)

    def _random(self, *what: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, *what])))
