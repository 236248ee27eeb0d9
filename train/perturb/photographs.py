"""A bank as training draws from it: all of it in the device's memory, mapped, or a part of it that is renewed.

- `Resident` holds all photographs on the device.
- `Mapped` gathers tokens from memory-mapped shards, so a bank may be larger than the device's memory. It waits for the
  device.
- `Streamed` holds a random part on the device and replaces some photographs with every batch. It reads whole shards, in
  random order and ahead of training, so a bank may be larger than any memory.

All check the CRC-32 of what they read.
"""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.bank import Bank
from cache.errors import WrongUse
from models.device import free_memory, upload
from sources.ahead import ahead

POOL_BYTES = 512 << 20  # of the photographs that `Streamed` holds
RENEWED = 16  # photographs replaced with every batch
AHEAD = 16  # batches for which photographs are read beforehand


@dataclass(frozen=True)
class HowToRead:
    """How to read a bank.

    `reader` is resident, mapped, streamed, or auto: by the bank's size. `seed` decides what `Streamed` holds when.
    `particular` is whether a number must always mean the same photograph, as it does not in `Streamed`.
    """

    reader: str = "auto"
    seed: tuple[int, ...] = (0,)
    particular: bool = False


READ = HowToRead()  # unless it is said otherwise


class Resident:
    """All photographs, (N, T, D) float16, on the device."""

    name = "resident"
    replayable = True  # whether a GPU may replay a step that gathers

    def __init__(self, features: Tensor, about: str) -> None:
        self.features, self.about = features, about
        self.count, self.tokens, self.width = features.shape
        self.total, self.device = self.count, features.device  # `count` of the bank's `total` can be drawn at present

    def gather(self, photographs: Tensor, positions: Tensor) -> Tensor:
        """Tokens (B, M, D) float16 of photographs (B,) at positions (M,) or (B, M)."""
        places = photographs[:, None] * self.tokens + positions  # (B, M), in all tokens end to end
        found = self.features.flatten(0, 1).index_select(0, places.flatten())
        return found.view(*places.shape, self.width)

    def advance(self, batch: int) -> None:
        """Hold what belongs to batch number `batch` of the run."""

    def close(self) -> None:
        """Stop reading ahead; `advance` may begin anew. To be called: a thread left to the collector can block all."""


class Mapped(Resident):
    """Photographs in memory-mapped shards, which are checked once, here."""

    name, replayable = "mapped", False

    def __init__(self, bank: Bank, device: torch.device, about: str) -> None:
        self._maps, self.about, self.device = [], about, device
        for shard in bank.shards():
            shard.read("features")
            self._maps.append(shard.map("features"))
        self._starts = np.cumsum([0, *map(len, self._maps)])
        self.total = self.count = int(self._starts[-1])
        self.tokens, self.width = self._maps[0].shape[1:]

    def gather(self, photographs: Tensor, positions: Tensor) -> Tensor:
        """As `Resident.gather`."""
        which, places = photographs.cpu().numpy(), positions.cpu().numpy()
        places = np.broadcast_to(places, (len(which), places.shape[-1]))
        found = np.empty((*places.shape, self.width), np.float16)
        shards = np.searchsorted(self._starts, which, side="right") - 1
        for number in np.unique(shards):
            here = np.flatnonzero(shards == number)
            found[here] = self._maps[number][(which[here] - self._starts[number])[:, None], places[here]]
        return upload(torch.from_numpy(found), self.device)


class Streamed(Resident):
    """A part of the bank, of which RENEWED photographs are replaced with every batch.

    What it holds at a batch is a function of the seed and the batch's number: the photographs are read in an order that
    never ends, in which each comes once before any comes again, and the part moves along it.
    """

    name = "streamed"

    def __init__(self, bank: Bank, device: torch.device, about: str, seed: tuple[int, ...]) -> None:
        self._shards, self._seed = list(bank.shards()), seed
        tokens, width = self._shards[0].entry.datasets["features"].shape[1:]
        fits = min(bank.rows, POOL_BYTES // (tokens * width * 2))
        self._pieces = max(1, fits // RENEWED)
        features = torch.empty(self._pieces * RENEWED, tokens, width, dtype=torch.float16, device=device)
        super().__init__(features, f"{about}; {len(features):,} at a time, {RENEWED} of them new with every batch")
        self.total, self._batch = bank.rows, -1
        self._coming: Generator[NDArray[np.float16], None, None] | None = None

    def advance(self, batch: int) -> None:
        """As `Resident.advance`. Damaged, naming the shard, if one is not what was written."""
        if batch == self._batch:
            return
        if self._coming and batch == self._batch + 1:
            self._put(batch + self._pieces - 1)
        else:  # the run begins or continues here
            self.close()
            self._coming = ahead(self._read(batch), AHEAD)
            for piece in range(batch, batch + self._pieces):
                self._put(piece)
        self._batch = batch

    def close(self) -> None:
        """As `Resident.close`."""
        if self._coming:
            self._coming.close()
        self._coming, self._batch = None, -1

    def _put(self, piece: int) -> None:
        assert self._coming
        start = piece % self._pieces * RENEWED
        self.features[start : start + RENEWED].copy_(torch.from_numpy(next(self._coming)))

    def _read(self, first: int) -> Generator[NDArray[np.float16], None, None]:
        """Pieces of RENEWED photographs without end, from piece `first` of the order on."""
        rows = [shard.entry.rows for shard in self._shards]
        epoch, skipped = divmod(first * RENEWED, sum(rows))
        left = np.empty((0, self.tokens, self.width), np.float16)
        while True:
            random = np.random.Generator(np.random.Philox(np.random.SeedSequence([*self._seed, epoch])))
            for number in random.permutation(len(rows)):
                order = random.permutation(rows[number])[skipped:]
                skipped = max(0, skipped - rows[number])
                if len(order):
                    left = np.concatenate([left, self._shards[number].read("features")[order]])
                    while len(left) >= RENEWED:
                        yield left[:RENEWED]
                        left = left[RENEWED:]
            epoch += 1


def photographs_of(bank: Bank, device: torch.device, how: HowToRead) -> Resident:
    """A bank, read in the way asked for.

    Raises WrongUse if that cannot be, DptrError for an empty bank, Damaged for a shard that is not what was written.
    """
    size, free = bank.bytes, free_memory(device)
    reader, why = how.reader, "as --bank-reader says"
    if reader == "auto":
        reader = "resident" if size <= free // 2 else "mapped" if how.particular else "streamed"
        fit = "fit into" if reader == "resident" else "are more than"
        why = f"{size / 1e9:.3g} GB {fit} half of the {free / 1e9:.3g} GB free on {device.type}"
    about = f"{reader}: {why}"
    if reader == "resident":
        return Resident(torch.from_numpy(bank.features()).to(device), about)
    if reader == "mapped":
        return Mapped(bank, device, about)
    if how.particular:
        raise WrongUse(
            "--bank-reader streamed holds a changing part of the photographs, and this perturbation draws particular "
            "ones: choose mapped."
        )
    return Streamed(bank, device, about, how.seed)
