"""Online random perturbation: a photograph's tokens added to a memory's rows."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from train.perturb.base import Moved, Part
from train.perturb.grammar import Amount
from train.perturb.material import Material
from train.perturb.photographs import Resident


@dataclass
class ORP(Part):
    """F_p = F_t + λ · crop(I(x)): each sample gets its own photograph, and each row its own token of it.

    DPTR (arXiv 2408.05706). `strength` is λ (released: 0.1), or its percentage of the memories' mean row norm.
    `positions`: `shared`, the whole batch takes tokens of the same places, as released; `sample`, each draws its own.
    """

    name = "orp"
    needs_bank = True
    strength: Amount = Amount(0.1)  # noqa: RUF009 (frozen)
    positions: Literal["shared", "sample"] = "shared"

    def prepare(self, material: Material) -> None:
        assert material.bank
        self.bank, self.photographs = material.bank.name, material.photographs
        self.memory_norm, self.bank_norm = material.norm, material.bank_norm
        self.factor = self.strength.of(material.norm, material.bank_norm)

    def draw(self, B: int, M: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw photographs (B,), and token positions (M,) if shared, else (B, M).

        No photograph is repeated before the whole bank has been drawn, and no position of a sample before all tokens of
        a photograph have.
        """
        N, T = self.photographs.count, self.photographs.tokens
        device, shared = self.photographs.device, self.positions == "shared"
        photographs = shuffled(1, N, B, device, generator)[0]
        positions = shuffled(1 if shared else B, T, M, device, generator)
        return photographs, positions[0] if shared else positions

    def __call__(self, memory: Tensor, mask: Tensor | None, generator: torch.Generator | None = None) -> Moved:
        return self.add(memory, *self.draw(memory.shape[0], memory.shape[1], generator)), mask

    def add(self, memory: Tensor, photographs: Tensor, positions: Tensor) -> Tensor:
        """Memory (B, M, D) with tokens, as `draw` chose them, added to its rows."""
        noise = self.photographs.gather(photographs, positions).to(memory.dtype)
        return noise.mul_(self.factor).add_(memory)

    @property
    def source(self) -> Resident:
        return self.photographs

    def describe(self) -> str:
        held = self.photographs
        return (
            f"{held.total:,} photographs of {held.tokens} tokens ({held.about}), "
            f"λ = {self.factor:.4g}, which moves rows by {self._relative:.1%} "
            f"(mean norms: memory {self.memory_norm:.3g}, photographs {self.bank_norm:.3g}), "
            f"positions {'shared by the batch' if self.positions == 'shared' else 'drawn for each sample'}"
        )

    def to_dict(self) -> dict[str, Any]:
        held = self.photographs
        return {
            "bank": self.bank,
            "photographs": held.total,
            **({"at a time": held.count} if held.name == "streamed" else {}),
            "tokens": held.tokens,
            "lambda": self.factor,
            "relative": self._relative,
            "memory_norm": self.memory_norm,
            "bank_norm": self.bank_norm,
            "positions": self.positions,
        }

    @property
    def _relative(self) -> float:
        return self.factor * self.bank_norm / self.memory_norm if self.memory_norm else 0.0


def shuffled(rows: int, size: int, count: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """(rows, count): each row holds as many random orders of 0..size - 1 as it takes, end to end."""
    rounds = -(-count // size)
    orders = torch.rand(rows, rounds, size, device=device, generator=generator).argsort(-1)
    return orders.view(rows, rounds * size)[:, :count]
