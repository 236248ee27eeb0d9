"""What is added to memories in training: photograph tokens (ORP), drawn on the device, or Gaussian noise.

F_p = F_t + λ · crop(I(x)) (DPTR, arXiv 2408.05706): each sample gets its own photograph, and each row its own token of
it. Used only in training, never in evaluation.
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
    """The interface of every perturbation. This one leaves memories as the encoder gave them."""

    def __call__(self, memory: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Memory (B, M, D), perturbed; random numbers come from `generator`, by default torch's global one."""
        return memory

    def describe(self) -> str:
        """One line to print."""
        return "no perturbation (no --bank)"

    def to_dict(self) -> dict[str, Any]:
        """For config.json."""
        return {}


class ORP(Perturbation):
    """Adds photograph tokens from a bank (N, T, D) float16 on the training device, with strength λ."""

    def __init__(
        self, features: Tensor, strength: float, *, shared: bool = True, bank: str = "", memory_norm: float = 1.0
    ) -> None:
        """`shared`: the whole batch uses the same token positions (as released); otherwise each sample draws its own.

        `bank` (its name) and `memory_norm` (the mean L2 norm of memory rows) only serve to describe the perturbation.
        """
        self.features, self.strength, self.shared = features, strength, shared
        self.bank, self.memory_norm = bank, memory_norm
        self.bank_norm = sampled_row_norm(features)

    def draw(self, B: int, M: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw photographs (B,), and token positions (M,) if shared, else (B, M).

        No photograph is repeated before the whole bank has been drawn, and no position of a sample before all tokens of
        a photograph have.
        """
        N, T, _ = self.features.shape
        device = self.features.device
        photographs = _shuffled(1, N, B, device, generator)[0]
        positions = _shuffled(1 if self.shared else B, T, M, device, generator)
        return photographs, positions[0] if self.shared else positions

    def __call__(self, memory: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Memory (B, M, D) with every row perturbed, in its own dtype."""
        photographs, positions = self.draw(memory.shape[0], memory.shape[1], generator)
        noise = self.features[photographs[:, None], positions]  # (B, M, D)
        return memory + self.strength * noise.to(memory.dtype)

    def describe(self) -> str:
        """One line to print: what is added, and how far it moves rows."""
        photographs, tokens, _ = self.features.shape
        return (
            f"perturbation: {photographs:,} photographs of {tokens} tokens, λ = {self.strength:.4g}, which moves rows "
            f"by {self._relative:.1%} (mean norms: memory {self.memory_norm:.3g}, photographs {self.bank_norm:.3g}), "
            f"positions {'shared by the batch' if self.shared else 'drawn for each sample'}"
        )

    def to_dict(self) -> dict[str, Any]:
        """For config.json: λ itself and as a fraction of the memories' norm, among others."""
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


class Gaussian(Perturbation):
    """Adds normal noise to every value, whose norm over a row is `share` of the memories' mean row norm."""

    def __init__(self, share: float, memory_norm: float) -> None:
        self.share, self.memory_norm = share, memory_norm

    def __call__(self, memory: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Memory (B, M, D) with every row perturbed, in its own dtype."""
        deviation = self.share * self.memory_norm / memory.shape[-1] ** 0.5
        noise = torch.randn(memory.shape, device=memory.device, dtype=memory.dtype, generator=generator)
        return memory + deviation * noise

    def describe(self) -> str:
        """One line to print."""
        return f"perturbation: Gaussian noise that moves rows by {self.share:.1%} (mean norm {self.memory_norm:.3g})"

    def to_dict(self) -> dict[str, Any]:
        """For config.json."""
        return {"noise": self.share, "memory_norm": self.memory_norm}


def of(options: PretrainOptions, space: Space, loader: MemoryLoader, words: Words) -> Perturbation:
    """The perturbation that the options ask for; the memories' norm is measured on a sample of `words`.

    Raises WrongUse for a bank that does not exist, DptrError for one whose features cannot be added to the memories.
    """
    if options.bank is None and options.noise is None:
        return Perturbation()
    memory, mask = loader.load(words.take(range(0, len(words), max(1, len(words) // 1000))))
    norm = mean_row_norm(memory if mask is None else memory[mask])
    if options.bank is None:
        return Gaussian(options.noise or 0.0, norm)
    features = torch.from_numpy(space.existing_bank(options.bank).features())
    if loader.width != features.shape[-1]:
        raise DptrError(
            f"bank '{options.bank}' has {features.shape[-1]} values per token but memory rows have {loader.width}, so "
            "this encoder's image and text features cannot be added: pre-train without --bank."
        )
    share = options.orp_relative
    strength = options.strength if share is None else share * norm / sampled_row_norm(features)
    shared = options.orp_positions == "shared"
    return ORP(features.to(loader.device), strength, shared=shared, bank=options.bank, memory_norm=norm)


def _shuffled(rows: int, size: int, count: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """(rows, count): each row holds as many random orders of 0..size - 1 as it takes, end to end."""
    rounds = -(-count // size)
    orders = torch.rand(rows, rounds, size, device=device, generator=generator).argsort(-1)
    return orders.view(rows, rounds * size)[:, :count]


def mean_row_norm(rows: Tensor) -> float:
    """Mean L2 norm over the last dimension of (..., D), in float32."""
    return float(torch.linalg.vector_norm(rows.float(), dim=-1).mean())


def sampled_row_norm(features: Tensor) -> float:
    """The same over the tokens of about 500 photographs of (N, T, D)."""
    return mean_row_norm(features[:: max(1, len(features) // 500)])
