"""ORP, Offline Randomized Perturbation: photograph tokens added to text memories, drawn on the device.

F_p = F_t + λ · crop(I(x)) (DPTR, arXiv 2408.05706): each sample gets another photograph, each row another token of it.
Only in training, never in evaluation.
"""

from typing import Any

import torch
from torch import Tensor

from cache.errors import DptrError
from cache.space import Space
from train.data.word_batches import MemoryLoader
from train.data.words import Words
from train.pretrain_options import PretrainOptions


class Perturbation:
    """What every perturbation can do. This one leaves memories as the encoder gave them."""

    def __call__(self, memory: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Memory (B, M, D), perturbed; what is drawn comes from `generator`, or from torch's own."""
        return memory

    def describe(self) -> str:
        """A line for a person."""
        return "no perturbation (no --bank)"

    def to_dict(self) -> dict[str, Any]:
        """For config.json."""
        return {}


class ORP(Perturbation):
    """Adds tokens of photographs: a bank (N, T, D) float16 on the training device, and the strength λ."""

    def __init__(
        self, features: Tensor, strength: float, *, shared: bool = True, bank: str = "", memory_norm: float = 1.0
    ) -> None:
        """`shared`: the drawn token positions are the same for the whole batch (as released), else drawn a sample.

        `bank` and `memory_norm`, the mean L2 norm of memory rows, are what the perturbation is described with.
        """
        self.features, self.strength, self.shared = features, strength, shared
        self.bank, self.memory_norm = bank, memory_norm
        self.bank_norm = sampled_row_norm(features)

    def draw(self, B: int, M: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Photographs (B,), and token positions (M,) if shared, else (B, M).

        Photographs are distinct while the bank lasts and then begin anew; positions of a sample are distinct while the
        tokens of a photograph last and then begin anew.
        """
        N, T, _ = self.features.shape
        device = self.features.device
        photographs = _shuffled(1, N, B, device, generator)[0]
        positions = _shuffled(1 if self.shared else B, T, M, device, generator)
        return photographs, positions[0] if self.shared else positions

    def __call__(self, memory: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Memory (B, M, D) perturbed on all rows, in its own dtype."""
        photographs, positions = self.draw(memory.shape[0], memory.shape[1], generator)
        noise = self.features[photographs[:, None], positions]  # (B, M, D)
        return memory + self.strength * noise.to(memory.dtype)

    def describe(self) -> str:
        """A line for a person: what is added, and how far it moves rows."""
        photographs, tokens, _ = self.features.shape
        return (
            f"perturbation: {photographs:,} photographs of {tokens} tokens, λ = {self.strength:.4g}, which moves rows "
            f"by {self._relative:.1%} (mean norms: memory {self.memory_norm:.3g}, photographs {self.bank_norm:.3g}), "
            f"positions {'shared by the batch' if self.shared else 'drawn for each sample'}"
        )

    def to_dict(self) -> dict[str, Any]:
        """For config.json: λ as such and as a share of the memories' norm."""
        photographs, tokens, _ = self.features.shape
        return {
            "bank": self.bank,
            "photographs": photographs,
            "tokens": tokens,
            "lambda": self.strength,
            "relative": self._relative,
            "memory_norm": self.memory_norm,
            "bank_norm": self.bank_norm,
            "positions": "shared" if self.shared else "sample",
        }

    @property
    def _relative(self) -> float:
        return self.strength * self.bank_norm / self.memory_norm


def of(options: PretrainOptions, space: Space, loader: MemoryLoader, words: Words) -> Perturbation:
    """The perturbation that the options ask for, measured on a sample of `words`.

    WrongUse for a bank that is not there, DptrError for one whose features cannot be added to the memories.
    """
    if options.bank is None:
        return Perturbation()
    features = torch.from_numpy(space.existing_bank(options.bank).features())
    if loader.width != features.shape[-1]:
        raise DptrError(
            f"bank '{options.bank}' has {features.shape[-1]} values a token and the memories {loader.width}: this "
            "encoder's image and text features cannot be added, so pre-train without --bank."
        )
    memory, mask = loader.load(words.take(range(0, len(words), max(1, len(words) // 1000))))
    norm = mean_row_norm(memory if mask is None else memory[mask])
    share = options.orp_relative
    strength = options.strength if share is None else share * norm / sampled_row_norm(features)
    shared = options.orp_positions == "shared"
    return ORP(features.to(loader.device), strength, shared=shared, bank=options.bank, memory_norm=norm)


def _shuffled(rows: int, size: int, count: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """(rows, count): in each row as many random orders of 0..size - 1 as it takes, end to end."""
    rounds = -(-count // size)
    orders = torch.rand(rows, rounds, size, device=device, generator=generator).argsort(-1)
    return orders.view(rows, rounds * size)[:, :count]


def mean_row_norm(rows: Tensor) -> float:
    """Mean L2 norm over the last dimension of (..., D), in float32."""
    return float(torch.linalg.vector_norm(rows.float(), dim=-1).mean())


def sampled_row_norm(features: Tensor) -> float:
    """The same over the tokens of about 500 photographs of (N, T, D)."""
    return mean_row_norm(features[:: max(1, len(features) // 500)])
