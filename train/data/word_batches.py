"""Batches of words: their memories as padded tensors on the device, and their ids.

Shape letters: B batch, L characters, M memory rows, D width, P rows of the common prefix.
"""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.memories import MemoryReader
from cache.space import Space
from models.device import upload
from train.data.plan import Plan
from train.data.readers import Reader
from train.data.words import Words


class MemoryLoader:
    """Loads memories as the decoder sees them, whatever their layout: padded, with a mask, on the device.

    With `zero`, all values are 0, so that there is nothing to read: a control.
    """

    def __init__(self, space: Space, device: torch.device, zero: bool = False) -> None:
        self._zero = zero
        self.reader = MemoryReader(space.memories)
        constants = space.constants()
        self._prefix = torch.from_numpy(constants["prefix"]).to(device, torch.float32)  # (P, D)
        self._projection = torch.from_numpy(constants["text_projection"]).to(device)  # (D, E)
        self._layout = space.fingerprint.layout
        self.device = device
        self.width = self.reader.width

    def load(self, words: Words) -> tuple[Tensor, Tensor | None]:
        """Memory (B, M, D) float32 and its mask (B, M), None if no row is padding.

        Compact memories are expanded to: the end token's row, projected; the common prefix; the rows up to the end
        token. The projected row is left out if the encoder's two widths differ. Shared memories are expanded to: the
        end token's row; the rows up to it. So are an image tower's tokens: a word's, then its parts.
        """
        return self.padded(*self.reader.gather(words.memories))

    def padded(self, states: Tensor | NDArray[np.float16], lengths: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        """The same from states end to end (ΣL, D), as the cache stores them or the encoder returns them.

        Does not wait for the device.
        """
        memory, mask = self._padded(upload(torch.as_tensor(states), self.device).float(), lengths)
        return torch.zeros_like(memory) if self._zero else memory, mask

    def _padded(self, ragged: Tensor, lengths: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        B, D = len(lengths), self.width
        if self._layout == "full":
            return ragged.view(B, -1, D), None
        counts = upload(torch.from_numpy(lengths), self.device)
        ends = counts.cumsum(0)
        head = self._prefix.expand(B, -1, -1)
        if self._layout == "shared":
            head = ragged[ends - 1][:, None]
        elif self._projection.shape[0] == self._projection.shape[1]:
            head = torch.cat([(ragged[ends - 1] @ self._projection)[:, None], head], 1)
        H = head.shape[1]
        M = H + int(lengths.max())
        place = torch.arange(len(ragged), device=self.device)
        sample = torch.repeat_interleave(torch.arange(B, device=self.device), counts, output_size=len(ragged))
        memory = ragged.new_zeros(B, M, D)
        memory[:, :H] = head
        memory[sample, H + place - (ends - counts)[sample]] = ragged
        mask = torch.arange(M, device=self.device) < (H + counts)[:, None]
        return memory, mask


@dataclass(frozen=True)
class TextBatch:
    """On the device: memories (B, M, D), their mask (B, M) and numbers (B,), and the ids of their words (B, L + 2)."""

    number: int
    labels: Words
    memory: Tensor
    mask: Tensor | None
    targets: Tensor
    numbers: Tensor
    drawn: Tensor | None = None  # what the decoder's loss draws on the CPU, if it was drawn already

    def __len__(self) -> int:
        return len(self.targets)


def batches(loader: MemoryLoader, reader: Reader, plan: Plan, first: int) -> Generator[TextBatch, None, None]:
    """Yield batches without end, epoch after epoch, from the run's batch number `first` on."""
    begun, start = reader.place(plan, first)
    number = count(first)
    for epoch in count(begun):
        for part, states, lengths in reader.epoch(plan, epoch, start):
            if not len(part):  # of an epoch's last batch, other ranks have all words
                nothing = torch.empty(0, device=loader.device)
                yield TextBatch(next(number), part, nothing, None, nothing, nothing)
                continue
            memory, mask = loader.padded(states, lengths)
            targets, numbers = (upload(t, loader.device) for t in (part.targets(), torch.from_numpy(part.memories)))
            yield TextBatch(next(number), part, memory, mask, targets, numbers)
        start = 0
