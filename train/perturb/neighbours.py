"""Photographs chosen by what they show: near a word, far from it, or evenly from all kinds of scenes.

All else is as in orp: which tokens of a photograph are added, and how strongly. What is near is found beforehand
(`dptr neighbours`), and cells are read, or computed, when a run begins; a step only gathers.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from cache.errors import DptrError
from train.perturb.base import Moved
from train.perturb.material import Material
from train.perturb.orp import ORP, shuffled


@dataclass
class Nearest(ORP):
    """As orp, but the photograph is one of the `k` nearest to the word's projected end token, each as often.

    By cosine, in the space that both towers share, so words get scenes that they may stand in. Neighbours are found
    with FAISS (Douze et al., arXiv 2401.08281) and stored by `dptr neighbours`.
    """

    name = "nearest"
    needs_numbers = True
    particular = True
    side: ClassVar[str] = "near"
    k: int = 32

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError("k must be at least 1")

    def prepare(self, material: Material) -> None:
        super().prepare(material)
        table = material.neighbours(self.side)
        if table.shape[1] < min(self.k, self.photographs.count):
            raise DptrError(
                f"{self.name} with k={self.k} needs more than the {table.shape[1]} neighbours of each word in bank "
                f"'{self.bank}': run dptr neighbours CORPUS {self.bank} --k {self.k}, or ask for a smaller k."
            )
        self.table = table[:, : self.k].contiguous()

    def __call__(
        self,
        memory: Tensor,
        mask: Tensor | None,
        generator: torch.Generator | None = None,
        numbers: Tensor | None = None,
    ) -> Moved:
        assert numbers is not None, "the caller gives the numbers of the memories, as needs_numbers says"
        B, M, _ = memory.shape
        _, positions = self.draw(B, M, generator)
        width = self.table.shape[1]
        column = (torch.rand(B, device=memory.device, generator=generator) * width).long().clamp(max=width - 1)
        return self.add(memory, self.table[numbers, column].long(), positions), mask

    def describe(self) -> str:
        return f"{super().describe()}; of these, the {self.table.shape[1]} {self._which} each word"

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "k": self.table.shape[1]}

    @property
    def _which(self) -> str:
        return "nearest to"


@dataclass
class Far(Nearest):
    """As nearest, with the `k` photographs farthest from the word: whether likeness helps, or harms."""

    name = "far"
    side = "far"

    @property
    def _which(self) -> str:
        return "farthest from"


@dataclass
class Spread(ORP):
    """As orp, but each cell of the bank's index is drawn as often, and each photograph of a cell as often as another.

    So common scenes do not drown rare ones. No cell is repeated before all have been drawn. If the index has no cells,
    k-means makes some when a run begins, always the same.
    """

    name = "spread"
    particular = True

    def prepare(self, material: Material) -> None:
        super().prepare(material)
        self.order = material.cells.argsort(stable=True)  # photographs, those of a cell together
        self.sizes = material.cells.bincount()
        self.sizes = self.sizes[self.sizes > 0]  # (C,)
        self.starts = self.sizes.cumsum(0) - self.sizes

    def draw(self, B: int, M: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """As `ORP.draw`, with photographs balanced over cells."""
        _, positions = super().draw(B, M, generator)
        device = self.order.device
        cell = shuffled(1, len(self.sizes), B, device, generator)[0]
        size = self.sizes[cell]
        within = (torch.rand(B, device=device, generator=generator) * size).long().minimum(size - 1)
        return self.order[self.starts[cell] + within], positions

    def describe(self) -> str:
        return f"{super().describe()}; drawn evenly from {len(self.sizes):,} cells"

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "cells": len(self.sizes)}
