"""ORP, Offline Randomized Perturbation: photograph tokens added to text memories, drawn on the device.

F_p = F_t + λ · crop(I(x)) (DPTR, arXiv 2408.05706): each sample gets another photograph, each row another token of it.
Only in training, never in evaluation.
"""

import torch
from torch import Tensor


class Perturbation:
    """A bank of photograph tokens (N, T, D) float16 on the training device, and the strength λ."""

    def __init__(self, features: Tensor, strength: float, *, shared: bool = True) -> None:
        """`shared`: the drawn token positions are the same for the whole batch (as released), else drawn a sample."""
        self.features = features
        self.strength = strength
        self.shared = shared

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


def _shuffled(rows: int, size: int, count: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """(rows, count): in each row as many random orders of 0..size - 1 as it takes, end to end."""
    rounds = -(-count // size)
    orders = torch.rand(rows, rounds, size, device=device, generator=generator).argsort(-1)
    return orders.view(rows, rounds * size)[:, :count]


def mean_row_norm(rows: Tensor) -> float:
    """Mean L2 norm over the last dimension of (..., D), in float32."""
    return float(torch.linalg.vector_norm(rows.float(), dim=-1).mean())
