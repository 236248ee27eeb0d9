"""Kinds that change which rows a memory has: some repeated or blanked, some dropped, some of another word.

The first row, the word as a whole, always stays where it is. Padding never becomes a row, nor a row's copy.
"""

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from train.perturb.base import Moved, Part

EPSILON = 1e-4  # 0.3 of 10 rows are 3, whatever floating point says


@dataclass
class Stretch(Part):
    """A word's rows are spread over more rows, as a picture's columns are: some repeated, with blanks between them.

    `share` more rows than a word has are put after rows drawn at random (never the first). Of these, the fraction
    `blanks` are zeros, the others repeat the row before them. No row of the word is lost; M grows by the same share.
    """

    name = "stretch"
    share: float
    blanks: float = 0.5

    def __post_init__(self) -> None:
        if self.share <= 0:
            raise ValueError("share must be above 0")
        if not 0 <= self.blanks <= 1:
            raise ValueError("blanks must be from 0 to 1")

    def __call__(self, memory: Tensor, mask: Tensor | None, generator: torch.Generator | None = None) -> Moved:
        B, M, D = memory.shape
        device = memory.device
        extra = ceil(self.share * M - EPSILON)
        rows = _mask(memory, mask)
        counts = rows.sum(1, keepdim=True)
        drawn = torch.rand(B, extra, device=device, generator=generator)
        after = 1 + (drawn * (counts - 1)).long().clamp(max=M - 2)  # (B, extra), the row that an extra one follows
        blank = torch.rand(B, extra, device=device, generator=generator) < self.blanks
        wanted = torch.arange(extra, device=device) < (self.share * counts - EPSILON).ceil()
        wanted &= counts > 1
        # Rows in their order, each followed by its copies and then its blanks; what is no row comes last
        places = torch.arange(M, device=device).expand(B, M).where(rows, M)
        follows = (after * 3 + 1 + blank.long()).where(wanted, 3 * M)
        order = torch.cat([places * 3, follows], 1).argsort(stable=True, dim=1)
        source = torch.cat([torch.arange(M, device=device).expand(B, M), after], 1).gather(1, order)
        zero = torch.cat([torch.zeros_like(rows), blank], 1).gather(1, order)
        there = torch.cat([rows, wanted], 1).gather(1, order)
        found = memory.gather(1, source[..., None].expand(-1, -1, D))
        return found * (there & ~zero)[..., None].to(memory.dtype), there

    def describe(self) -> str:
        return f"{self.share:.0%} more rows, of which {self.blanks:.0%} are blank and the others repeat the one before"


@dataclass
class Drop(Part):
    """Each row but the first is left out with the probability `share`, as if it were padding: a control."""

    name = "drop"
    share: float

    def __post_init__(self) -> None:
        _check(self.share)

    def __call__(self, memory: Tensor, mask: Tensor | None, generator: torch.Generator | None = None) -> Moved:
        kept = _mask(memory, mask) & ~_chosen(memory, self.share, generator)
        return memory * kept[..., None].to(memory.dtype), kept

    def describe(self) -> str:
        return f"{self.share:.0%} of the rows are left out"


@dataclass
class Swap(Part):
    """Each row but the first is replaced, with the probability `share`, by a row of another word: a control.

    The other word is drawn from the batch, and the row from all of its rows but the first.
    """

    name = "swap"
    share: float

    def __post_init__(self) -> None:
        _check(self.share)

    def __call__(self, memory: Tensor, mask: Tensor | None, generator: torch.Generator | None = None) -> Moved:
        B, M, _ = memory.shape
        if B == 1 or M == 1:
            return memory, mask
        device = memory.device
        rows = _mask(memory, mask)
        chosen = rows & _chosen(memory, self.share, generator)
        away = 1 + torch.rand(B, M, device=device, generator=generator).mul(B - 1).long().clamp(max=B - 2)
        other = (torch.arange(B, device=device)[:, None] + away) % B
        last = rows.sum(1)[other] - 1
        row = 1 + (torch.rand(B, M, device=device, generator=generator) * last).long().clamp(max=M - 2)
        row = row.minimum(last)  # the other word may have nothing but its first row
        return torch.where(chosen[..., None], memory[other, row], memory), mask

    def describe(self) -> str:
        return f"{self.share:.0%} of the rows are rows of another word"


def _mask(memory: Tensor, mask: Tensor | None) -> Tensor:
    return torch.ones(memory.shape[:2], dtype=torch.bool, device=memory.device) if mask is None else mask


def _chosen(memory: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """Rows (B, M) drawn with the probability `share`, never the first."""
    chosen = torch.rand(memory.shape[:2], device=memory.device, generator=generator) < share
    chosen[:, 0] = False
    return chosen


def _check(share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError("share must be above 0 and at most 1")
