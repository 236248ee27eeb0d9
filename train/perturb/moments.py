"""Kinds that close the gap between text and images by the statistics of both: means μ, deviations σ, covariances Σ.

T is a sample of the memories' rows and I one of the bank's tokens. A bank of word images (embed-images of crops) gives
what the decoder will read; one of photographs gives the nearest thing if there are no word images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from train.perturb.base import Moved, Part
from train.perturb.gaussian import Gaussian
from train.perturb.grammar import Amount
from train.perturb.material import Material, mean_row_norm


@dataclass
class Shift(Part):
    """x + s (μ_I - μ_T), in evaluation too: the modality gap as a constant (CLOSE, arXiv 2211.09778)."""

    name = "shift"
    needs_bank = True
    share: float = 1.0

    def prepare(self, material: Material) -> None:
        self.move = self.share * (material.image.mean - material.text.mean)
        self.relative = _share(self.move, material.norm)

    def __call__(self, memory: Tensor, mask: Tensor | None, generator: torch.Generator | None = None) -> Moved:
        return self.evaluated(memory, mask)

    def evaluated(self, memory: Tensor, mask: Tensor | None) -> Moved:
        return memory + self.move.to(memory), mask

    def kept(self) -> dict[str, Tensor]:
        return {"move": self.move}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        self.move = kept["move"]

    def describe(self) -> str:
        return f"{self.share:g} of the way from text's mean to that of images, {self.relative:.1%} of the rows' norm"

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "relative": self.relative}


@dataclass
class Moments(Part):
    """(x - μ_T) σ_I / σ_T + μ_I for each dimension, in evaluation too: TOMCap (arXiv 2512.04309)."""

    name = "moments"
    needs_bank = True

    def prepare(self, material: Material) -> None:
        self.scale = material.image.deviation / material.text.deviation.clamp(min=1e-6)
        self.move = material.image.mean - material.text.mean * self.scale
        self.relative = _share(material.image.mean - material.text.mean, material.norm)

    def __call__(self, memory: Tensor, mask: Tensor | None, generator: torch.Generator | None = None) -> Moved:
        return self.evaluated(memory, mask)

    def evaluated(self, memory: Tensor, mask: Tensor | None) -> Moved:
        return memory * self.scale.to(memory) + self.move.to(memory), mask

    def kept(self) -> dict[str, Tensor]:
        return {"scale": self.scale, "move": self.move}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        self.scale, self.move = kept["scale"], kept["move"]

    def describe(self) -> str:
        return (
            f"the images' mean and deviation in each dimension (means {self.relative:.1%} of the rows' norm apart, "
            f"deviations {float(self.scale.median()):.3g} times as large)"
        )

    def to_dict(self) -> dict[str, Any]:
        return {"relative": self.relative, "scale": float(self.scale.median())}


@dataclass
class Collapse(Gaussian):
    """x - μ_T + σ n, and v - μ_I for image tokens v: C3 (arXiv 2401.08567). `strength` as for `gaussian`.

    Memories in evaluation are x - μ_T, without noise.
    """

    name = "collapse"
    needs_bank = True

    def prepare(self, material: Material) -> None:
        super().prepare(material)
        self.text, self.image = material.text.mean, material.image.mean
        self.gap = _share(self.image - self.text, material.norm)

    def __call__(self, memory: Tensor, mask: Tensor | None, generator: torch.Generator | None = None) -> Moved:
        return super().__call__(*self.evaluated(memory, mask), generator)

    def evaluated(self, memory: Tensor, mask: Tensor | None) -> Moved:
        return memory - self.text.to(memory), mask

    def inference(self, tokens: Tensor) -> Tensor:
        return tokens - self.image.to(tokens)

    def kept(self) -> dict[str, Tensor]:
        return {"text": self.text, "image": self.image}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        self.text, self.image = kept["text"], kept["image"]

    def describe(self) -> str:
        return f"both sides without their means ({self.gap:.1%} of the rows' norm apart), and {super().describe()}"

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "gap": self.gap}


class _Correlated(Part):
    """Adds `factor` times a normal row of mean `mean` (D,) and covariance root rootᵀ, `root` (D, D)."""

    mean: Tensor
    root: Tensor
    factor: float = 1.0

    def __call__(self, memory: Tensor, mask: Tensor | None, generator: torch.Generator | None = None) -> Moved:
        normal = torch.randn(memory.shape, device=memory.device, generator=generator)
        noise = (normal @ self.root.T).to(memory.dtype) + self.mean.to(memory.dtype)
        return memory + self.factor * noise, mask


@dataclass
class Covariance(_Correlated):
    """x + (μ_I - μ_T) + N(0, Σ_Δ), in evaluation only x + (μ_I - μ_T): CLOSE's structured noise (arXiv 2211.09778).

    CLOSE takes mean and covariance of the difference from pairs. Without pairs, Σ_Δ is the part of Σ_I - Σ_T that is a
    covariance (its negative eigenvalues are 0): what images vary in and text does not.
    """

    name = "covariance"
    needs_bank = True

    def prepare(self, material: Material) -> None:
        self.mean = material.image.mean - material.text.mean
        self.root = root_of(material.image.covariance - material.text.covariance)
        self.relative, self.spread = _share(self.mean, material.norm), float(self.root.norm()) / (material.norm or 1.0)

    def evaluated(self, memory: Tensor, mask: Tensor | None) -> Moved:
        return memory + self.mean.to(memory), mask

    def kept(self) -> dict[str, Tensor]:
        return {"mean": self.mean}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        self.mean = kept["mean"]

    def describe(self) -> str:
        return (
            f"the mean of images ({self.relative:.1%} of the rows' norm away), and noise that varies as images do and "
            f"text does not ({self.spread:.1%} of the norm)"
        )

    def to_dict(self) -> dict[str, Any]:
        return {"relative": self.relative, "spread": self.spread}


@dataclass
class Matched(_Correlated):
    """x + λ N(μ_I, Σ_I): a control for `orp`. Does the photograph matter, or only how its tokens are spread?

    `strength` is λ, or its percentage of the memories' mean row norm, as for `orp`.
    """

    name = "matched"
    needs_bank = True
    strength: Amount = Amount(0.1)  # noqa: RUF009 (frozen)

    def prepare(self, material: Material) -> None:
        self.mean, self.root = material.image.mean, root_of(material.image.covariance)
        self.factor = self.strength.of(material.norm, material.bank_norm)
        self.relative = self.factor * material.bank_norm / (material.norm or 1.0)

    def describe(self) -> str:
        return (
            f"noise with the mean and covariance of the bank's tokens, λ = {self.factor:.4g}, which moves rows by "
            f"{self.relative:.1%}"
        )

    def to_dict(self) -> dict[str, Any]:
        return {"lambda": self.factor, "relative": self.relative}


def root_of(covariance: Tensor) -> Tensor:
    """A matrix (D, D) whose product with its own transpose is a covariance; negative eigenvalues count as 0."""
    values, vectors = torch.linalg.eigh(covariance.double())
    return (vectors * values.clamp(min=0).sqrt()).float()


def _share(move: Tensor, norm: float) -> float:
    return mean_row_norm(move) / norm if norm else 0.0
