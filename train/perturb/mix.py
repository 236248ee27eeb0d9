"""Rows replaced by mixtures of other rows, so that what a decoder reads is always made of text."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from train.perturb.base import Moved, Part
from train.perturb.material import Material

SUPPORT = 1024  # rows of each side that are mixed


@dataclass
class Mix(Part):
    """Through the images and back: DeCap (arXiv 2303.03032), and Knight (arXiv 2304.13273) for the k nearest.

    In training and in evaluation, a row x goes to y = softmax(τ x·Iᵀ) I over its k nearest of a sample I of the bank's
    tokens, and back to softmax(τ y·Tᵀ) T over a sample T of the memories' rows. An image token v takes the same way
    back, softmax(τ v·Tᵀ) T, so the decoder reads mixtures of text in training and in pictures. Products are between
    rows of norm 1; results have the memories' mean row norm. Nothing is drawn.
    """

    name = "mix"
    needs_bank = True
    k: int = 8
    tau: float = 100.0

    def __post_init__(self) -> None:
        if not 1 <= self.k <= SUPPORT:
            raise ValueError(f"k must be from 1 to {SUPPORT:,}")
        if self.tau <= 0:
            raise ValueError("tau must be above 0")

    def prepare(self, material: Material) -> None:
        self.image = F.normalize(_spread(material.tokens), dim=-1)
        self.text = F.normalize(_spread(material.rows), dim=-1)
        self.norm = torch.tensor(material.norm, device=self.text.device)

    def __call__(self, memory: Tensor, mask: Tensor | None, generator: torch.Generator | None = None) -> Moved:
        return self.evaluated(memory, mask)

    def evaluated(self, memory: Tensor, mask: Tensor | None) -> Moved:
        image = self.image.to(memory)
        close, which = (F.normalize(memory, dim=-1) @ image.T).topk(min(self.k, len(image)), -1)  # (B, M, k)
        weights = torch.zeros(*memory.shape[:2], len(image), device=memory.device, dtype=close.dtype)
        weights.scatter_(-1, which, (self.tau * close).softmax(-1).to(close.dtype))
        return self.inference((weights @ image.to(weights)).to(memory.dtype)), mask

    def inference(self, tokens: Tensor) -> Tensor:
        text = self.text.to(tokens)
        weights = (self.tau * (F.normalize(tokens, dim=-1) @ text.T)).softmax(-1)
        return (self.norm.to(tokens) * F.normalize(weights.to(text.dtype) @ text, dim=-1)).to(tokens.dtype)

    def kept(self) -> dict[str, Tensor]:
        return {"image": self.image, "text": self.text, "norm": self.norm}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        self.image, self.text, self.norm = kept["image"], kept["text"], kept["norm"]

    def describe(self) -> str:
        return (
            f"mixtures of {len(self.text):,} rows of text, by way of the {min(self.k, len(self.image))} nearest of "
            f"{len(self.image):,} image tokens, τ = {self.tau:g}"
        )


def _spread(rows: Tensor) -> Tensor:
    """At most SUPPORT of rows (n, D), evenly spaced."""
    places = torch.linspace(0, len(rows) - 1, min(len(rows), SUPPORT), device=rows.device).long()
    return rows[places]
