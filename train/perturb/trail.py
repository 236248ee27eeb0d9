"""A kind that gives memories the length of an image tower's tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor

from train.perturb.base import Moved, Part


@dataclass
class Trail(Part):
    """A memory's last row is repeated until there are `rows` of them.

    The queries of wordclip2's image tower that find no more characters repeat the word's end, so a picture has 33
    tokens however short its word is, and most of them are that row. Nothing is random, so it is done in evaluation too.
    """

    name = "trail"
    rows: int = 33

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError("rows must be at least 1")

    def __call__(self, memory: Tensor, mask: Tensor | None, generator: torch.Generator | None = None) -> Moved:
        B, M, D = memory.shape
        if mask is None:
            mask = torch.ones(B, M, dtype=torch.bool, device=memory.device)
        places = torch.arange(max(M, self.rows), device=memory.device)
        last = (mask * places[:M]).amax(1, keepdim=True)
        source = torch.minimum(places, last)
        there = mask.gather(1, source) & ((places <= last) | (places < self.rows))
        return memory.gather(1, source[..., None].expand(-1, -1, D)), there

    def evaluated(self, memory: Tensor, mask: Tensor | None) -> Moved:
        return self(memory, mask)

    def describe(self) -> str:
        return f"the last row is repeated up to {self.rows} rows, as a picture's tokens are"
