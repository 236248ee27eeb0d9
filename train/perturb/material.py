"""What perturbations are made from: a sample of the memories' rows, a bank, and the statistics of both.

Statistics are computed when a run begins, which takes a second or less, and not kept with the space: they depend on the
run's words and its bank, and both can grow. What reading needs of them later is kept with the run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.bank import Bank
from cache.errors import DptrError, WrongUse
from cache.index import cells_of
from cache.neighbours import ABSENT
from cache.space import Space
from train.data.word_batches import MemoryLoader
from train.data.words import Words
from train.perturb.photographs import READ, HowToRead, Resident, photographs_of

WORDS, PHOTOGRAPHS = 1000, 500  # in a sample; there may be almost twice as many
MOST_ROWS = 1 << 15  # that statistics are computed from
WIDEST = 1024  # whose covariance is still small
Finds = Callable[[str], NDArray[np.int32]]


@dataclass(frozen=True)
class Statistics:
    """Of rows (n, D), on their device: mean (D,), deviation (D,), and covariance (D, D) if it was asked for."""

    rows: Tensor

    @cached_property
    def mean(self) -> Tensor:
        return self.rows.mean(0)

    @cached_property
    def deviation(self) -> Tensor:
        return self.rows.std(0)

    @cached_property
    def covariance(self) -> Tensor:
        """WrongUse if rows are too wide."""
        if self.rows.shape[1] > WIDEST:
            raise WrongUse(
                f"rows have {self.rows.shape[1]:,} values, and a covariance is computed up to {WIDEST:,}: "
                "perturb with gaussian or moments instead."
            )
        return torch.cov(self.rows.T)


class Material:
    """`rows` (n, D) float32 are a sample of the memories' rows, on the device of training; `layout` is the space's."""

    def __init__(
        self,
        rows: Tensor,
        bank: Bank | None = None,
        layout: str = "shared",
        table: Finds | None = None,
        how: HowToRead = READ,
    ) -> None:
        """`table` reads one side of the bank's neighbours, as `Neighbours.read` does; `how` is how to read the bank.

        DptrError if a bank's tokens are not as wide as the rows.
        """
        self.rows, self.bank, self.layout, self._table = rows, bank, layout, table
        self._how = how
        width = bank.entries[0].datasets["features"].shape[-1] if bank else rows.shape[1]
        if bank and width != rows.shape[1]:
            raise DptrError(
                f"bank '{bank.name}' has {width} values per token but memory rows have {rows.shape[1]}, so "
                "this encoder's image and text features cannot be added: pre-train without --bank."
            )

    @cached_property
    def norm(self) -> float:
        """The mean norm of rows."""
        return mean_row_norm(self.rows)

    @cached_property
    def bank_norm(self) -> float:
        """The mean norm of tokens."""
        return mean_row_norm(self._sample)

    @cached_property
    def photographs(self) -> Resident:
        """The bank as training draws from it. Raises as `photographs_of`."""
        return photographs_of(self._given, self.rows.device, self._how)

    @cached_property
    def tokens(self) -> Tensor:
        """A sample of the bank's tokens, (n, D) float32, on the device of training."""
        return _some(self._sample.flatten(0, 1)).to(self.rows.device).float()

    @cached_property
    def cells(self) -> Tensor:
        """The cell of each photograph in the bank's index, (N,) int64. DptrError if the index is not up to date."""
        return torch.from_numpy(cells_of(self._given.whole_index())).long().to(self.rows.device)

    def neighbours(self, side: str) -> Tensor:
        """The photographs `near` or `far` from each memory, (memories, k) int32. DptrError if some have none."""
        assert self._table, "a part with needs_numbers is not prepared without a table"
        return torch.from_numpy(self._table(side)).to(self.rows.device)

    @cached_property
    def text(self) -> Statistics:
        """Of the memories' rows."""
        return Statistics(_some(self.rows))

    @cached_property
    def image(self) -> Statistics:
        """Of the bank's tokens."""
        return Statistics(self.tokens)

    @cached_property
    def _sample(self) -> Tensor:
        """Photographs evenly spaced in the bank, (n, T, D) float16."""
        bank, start, found = self._given, 0, []
        step = max(1, bank.rows // PHOTOGRAPHS)
        for shard in bank.shards():
            found.append(torch.from_numpy(shard.read("features")[-start % step :: step].copy()))
            start += shard.entry.rows
        return torch.cat(found)

    @property
    def _given(self) -> Bank:
        assert self.bank, "a part with needs_bank is not prepared without one"
        return self.bank


def material_of(space: Space, loader: MemoryLoader, words: Words, bank: str | None, how: HowToRead = READ) -> Material:
    """What a run's perturbation is made from: rows of about 1,000 of its words, and its bank, if it has one.

    Raises WrongUse for a bank that does not exist, DptrError for one whose features cannot be added to the memories.
    """
    rows = rows_of(*loader.load(sampled(words)))
    if bank is None:
        return Material(rows, None, space.fingerprint.layout)
    found = space.existing_bank(bank)

    def table(side: str) -> NDArray[np.int32]:
        rows = space.neighbours(bank).read(side, space.memories, found)
        lacking = int((rows[words.memories, 0] == ABSENT).sum())
        if lacking:
            raise DptrError(
                f"{lacking:,} of {len(words):,} words have no neighbours in bank '{bank}': run dptr neighbours CORPUS "
                f"{bank} for each corpus."
            )
        return rows

    return Material(rows, found, space.fingerprint.layout, table, how)


def sampled(words: Words) -> Words:
    """About 1,000 of the words, evenly spaced."""
    return words.take(range(0, len(words), max(1, len(words) // WORDS)))


def rows_of(memory: Tensor, mask: Tensor | None) -> Tensor:
    """The rows (n, D) of memory (B, M, D) that are not padding; `mask` (B, M) is as `MemoryLoader.load` gives it."""
    return memory.flatten(0, 1) if mask is None else memory[mask]


def mean_row_norm(rows: Tensor) -> float:
    """Mean L2 norm over the last dimension of (..., D), in float32."""
    return float(torch.linalg.vector_norm(rows.float(), dim=-1).mean())


def _some(rows: Tensor) -> Tensor:
    """At most MOST_ROWS of rows (n, D), always the same ones."""
    if len(rows) <= MOST_ROWS:
        return rows
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:MOST_ROWS]
    return rows[chosen.to(rows.device)]
