"""Rows moved to where image tokens are by a small network that has seen no pair of the two."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from train.perturb.base import Moved, Part
from train.perturb.material import Material

SAMPLE, RATE = 256, 3e-3  # rows of each side in a step; learning rate
STAY = 1e-3  # weight of the loss for moving
WIDEST, WIDTHS = 4.0, 5  # the widest kernel, in median squared distances; each next one is half as wide


@dataclass
class Learned(Part):
    """x + f(x), f a network of one hidden layer, as wide as the rows, trained on a bank's tokens when a run begins.

    It is trained to make rows indistinguishable from tokens in their distribution, by the maximum mean discrepancy
    (Gretton et al., JMLR 2012) with Gaussian kernels of several widths, and to move them little. In the spirit of
    SynTIC (arXiv 2312.08865), which trains its network against the distances between sentences instead. In evaluation
    too, rows are moved; image tokens are not. Nothing is drawn.
    """

    name = "learned"
    needs_bank = True
    steps: int = 300

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError("steps must be at least 1")

    def prepare(self, material: Material) -> None:
        """Train, in the same way for the same rows and bank, whatever the run's seed."""
        text, image, scale = material.rows.float(), material.tokens, material.norm
        generator = torch.Generator().manual_seed(0)
        self.network = _network(text.shape[1], generator).to(text.device)
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=RATE)
        with torch.enable_grad():
            for _ in range(self.steps):
                x, v = (_some(rows, generator) / scale for rows in (text, image))
                moved = x + self.network(x)
                loss = discrepancy(moved, v) + STAY * (moved - x).square().sum(-1).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        self.network.requires_grad_(False)
        self.norm = torch.tensor(scale, device=text.device)

    def __call__(self, memory: Tensor, mask: Tensor | None, generator: torch.Generator | None = None) -> Moved:
        return self.evaluated(memory, mask)

    def evaluated(self, memory: Tensor, mask: Tensor | None) -> Moved:
        return memory + (self.norm * self.network(memory.float() / self.norm)).to(memory.dtype), mask

    def kept(self) -> dict[str, Tensor]:
        return {"norm": self.norm, **self.network.state_dict()}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        state = dict(kept)
        self.norm = state.pop("norm")
        self.network = _network(state["0.weight"].shape[1]).to(self.norm.device).requires_grad_(False)
        self.network.load_state_dict(state)


def discrepancy(a: Tensor, b: Tensor) -> Tensor:
    """The squared maximum mean discrepancy of samples (n, D) and (m, D), unbiased; its kernels are as wide as the
    samples together are spread.
    """
    n, m, both = len(a), len(b), torch.cat([a, b])
    norms = both.square().sum(-1)
    distances = (norms[:, None] + norms - 2 * both @ both.T).clamp(min=0)
    kernels = [torch.exp(-distances / (WIDEST * distances.detach().median()))]
    while len(kernels) < WIDTHS:
        kernels.append(kernels[-1].square())
    kernel = torch.stack(kernels).mean(0)
    within_a = (kernel[:n, :n].sum() - kernel[:n, :n].trace()) / (n * (n - 1))
    within_b = (kernel[n:, n:].sum() - kernel[n:, n:].trace()) / (m * (m - 1))
    return within_a + within_b - 2 * kernel[:n, n:].mean()


def _network(width: int, generator: torch.Generator | None = None) -> nn.Sequential:
    """From rows (..., D) to what is added to them; at first, nothing."""
    first, last = (nn.utils.skip_init(nn.Linear, width, width) for _ in range(2))  # torch's own draws stay as they are
    if generator:
        bound = width**-0.5
        nn.init.uniform_(first.weight, -bound, bound, generator=generator)
    for parameter in (first.bias, last.weight, last.bias):
        nn.init.zeros_(parameter)
    return nn.Sequential(first, nn.GELU(), last)


def _some(rows: Tensor, generator: torch.Generator) -> Tensor:
    chosen = torch.randint(len(rows), (SAMPLE,), generator=generator)
    return rows[chosen.to(rows.device)]
