"""An epoch's order: which words make which batch, a function of seed, epoch and rank alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW = 64  # batches whose words are sorted by length among themselves, so that a batch needs little padding


@dataclass(frozen=True)
class Plan:
    """How an epoch's words become batches of similar length: a function of these fields and the epoch alone.

    `batch` is what each of `ranks` processes takes in a step. Together they take the batches that one process would
    whose `batch` is theirs together; but where an order of blocks is given, each has a share of the blocks, so that
    nothing is read twice. Up to `ranks - 1` words come twice, so that all ranks take the same number of steps.
    """

    batch: int
    seed: int
    rank: int = 0
    ranks: int = 1

    def count(self, words: int) -> int:
        """Batches of an epoch."""
        return -(-self._share(words) // self.batch)

    def batches(self, lengths: NDArray[Any], epoch: int, start: int = 0) -> Iterator[NDArray[np.int64]]:
        """The batches of an epoch from number `start` on: indices (B,) into the words' `lengths` (n,)."""
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
        """The same, `window` batches at a time: words are shuffled and sorted by length within a window.

        `order` draws the order in which words come to the windows, which is any if there is none.
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
            if len(places):  # the last window may be short, and `start` behind it
                yield [batches[k] for k in places]

    def _share(self, words: int) -> int:
        return -(-words // self.ranks)

    def _random(self, *what: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, *what])))
