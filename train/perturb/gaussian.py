"""Normal noise on every value of a memory."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from train.perturb.base import Moved, Part
from train.perturb.grammar import Amount
from train.perturb.material import Material


@dataclass
class Gaussian(Part):
    """x + σ n, with n normal.

    CapDec (arXiv 2211.00575, σ² = 0.016 on rows of norm 1), CLOSE (arXiv 2211.09778, σ from 0.04 to 0.12).
    `strength` is σ, the deviation of each value; or a percentage: the noise's norm, as one of the memories' row norm.
    """

    name = "gaussian"
    strength: Amount

    def __post_init__(self) -> None:
        if self.strength.value <= 0:
            raise ValueError("strength must be above 0")

    def prepare(self, material: Material) -> None:
        self.memory_norm, self.root = material.norm, material.rows.shape[-1] ** 0.5
        self.deviation = self.strength.of(material.norm, self.root)

    def __call__(self, memory: Tensor, mask: Tensor | None, generator: torch.Generator | None = None) -> Moved:
        return memory + self.deviation * _normal(memory, generator), mask

    def describe(self) -> str:
        return (
            f"Gaussian noise, σ = {self.deviation:.4g}, which moves rows by {self._relative:.1%} "
            f"(mean norm {self.memory_norm:.3g})"
        )

    def to_dict(self) -> dict[str, Any]:
        return {"deviation": self.deviation, "relative": self._relative, "memory_norm": self.memory_norm}

    @property
    def _relative(self) -> float:
        return self.deviation * self.root / self.memory_norm if self.memory_norm else 0.0


@dataclass
class Scaled(Gaussian):
    """x + u σ n, with u uniform from 0 to 1 for each row: LinCIR (arXiv 2312.01998). `strength` as for `gaussian`."""

    name = "scaled"

    def __call__(self, memory: Tensor, mask: Tensor | None, generator: torch.Generator | None = None) -> Moved:
        B, M, _ = memory.shape
        u = torch.rand(B, M, 1, device=memory.device, dtype=memory.dtype, generator=generator)
        return memory + u * self.deviation * _normal(memory, generator), mask

    def describe(self) -> str:
        return f"{super().describe()}, times a number from 0 to 1 for each row"


def _normal(memory: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(memory.shape, device=memory.device, dtype=memory.dtype, generator=generator)
