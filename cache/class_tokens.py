"""The class tokens of a bank: one vector of each picture, which stands for all of it in the shared space.

They are read a block at a time, so that their number does not matter. Block edges depend on the bank alone.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.shard import Shard

BLOCK = 4096  # vectors added or compared together
Vectors = NDArray[np.float32]  # (n, E), of length 1


class ClassTokens:
    """The class tokens of a bank (N, E), as unit vectors, read from its shards when they are asked for."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self.width = int(shards[0].entry.datasets["features"].shape[-1])

    def __len__(self) -> int:
        return sum(shard.entry.rows for shard in self._shards)

    def blocks(self, start: int = 0, checked: bool = False) -> Iterator[tuple[int, Vectors]]:
        """(number of the first, vectors) of each block from the one with `start` on; the last may be shorter.

        `checked` reads the shards whole and raises Damaged if one has changed. Otherwise class tokens alone are read.
        """
        first, parts = start // BLOCK * BLOCK, np.empty((0, self.width), np.float32)
        at = 0  # of the shard, in the bank
        for shard in self._shards:
            skipped, at = max(0, first - at), at + shard.entry.rows
            if skipped >= shard.entry.rows:
                continue
            features = shard.read("features") if checked else shard.map("features")
            parts = np.concatenate([parts, unit(features[skipped:, 0])])
            while len(parts) >= BLOCK:
                yield first, parts[:BLOCK]
                first, parts = first + BLOCK, parts[BLOCK:]
        if len(parts):
            yield first, parts

    def spread(self, count: int, among: int) -> tuple[NDArray[np.int64], Vectors]:
        """`count` of the first `among` vectors, evenly spread, or all if there are fewer: numbers and vectors."""
        numbers = np.unique(np.linspace(0, among - 1, min(count, among)).astype(np.int64))
        return numbers, self.of(numbers)

    def of(self, numbers: NDArray[np.int64]) -> Vectors:
        """The vectors of these pictures."""
        found, at = np.empty((len(numbers), self.width), np.float32), 0
        for shard in self._shards:
            here = np.flatnonzero((numbers >= at) & (numbers < at + shard.entry.rows))
            if len(here):
                found[here] = unit(shard.map("features")[numbers[here] - at, 0])
            at += shard.entry.rows
        return found


def unit(rows: NDArray[Any]) -> Vectors:
    """Rows (n, E) of any type, divided by their norms."""
    import faiss

    vectors = np.array(rows, np.float32, order="C")
    faiss.normalize_L2(vectors)
    return vectors
