"""What one step trains on: drawn pictures, real crops, and words without a picture."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline.prompt import Prompt
from sources.ahead import mapped_ahead
from wordclip.crops import Crops
from wordclip.words import WordSampler


@dataclass
class Batch:
    """What one step is trained on."""

    pictures: Tensor  # (B, 32, 128, 3) uint8, the last `real` of them real crops
    real: int
    words: list[str]  # B, of which no two differ in case only
    ids: list[list[int]]  # their prompts
    others: list[str]  # words without a picture
    other_ids: list[list[int]]


class Batches:
    """Batch number `step` is a function of seed, step and size alone, so that training can go on from any."""

    def __init__(
        self,
        drawn: tuple[NDArray[np.uint8], Sequence[str]],
        crops: Crops,
        sampler: WordSampler,
        prompt: Prompt,
        *,
        real: float,
        others: float,
        seed: int,
    ) -> None:
        """`real` and `others` are shares of a batch: real crops in it, and words without a picture beside it."""
        self.pictures, self.words = drawn
        self.crops, self.sampler, self.prompt = crops, sampler, prompt
        self.batch = 64  # pictures; the training changes it as it goes
        self.others, self.seed = others, seed
        self.real = real if len(crops) else 0.0
        self._ids: dict[str, list[int]] = {}

    def make(self, step: int) -> Batch:
        rng = random.Random(f"{self.seed} {step}")
        batch = self.batch
        taken: set[str] = set()
        cropped = _different(self.crops.labels, round(self.real * batch), taken, rng)
        drawn = _different(self.words, batch - len(cropped), taken, rng)
        words = [self.words[n] for n in drawn] + [self.crops.labels[n] for n in cropped]
        others = [self.sampler.draw(rng) for _ in range(round(self.others * batch))]
        pictures = torch.from_numpy(np.concatenate([self.pictures[drawn], self.crops.pictures[cropped]]))
        return Batch(pictures, len(cropped), words, self._prompts(words), others, self._prompts(others))

    def ahead(self, step: int, depth: int = 8) -> Iterator[Batch]:
        """Batches from `step` on, made by a thread that is `depth` ahead."""
        return mapped_ahead(self.make, count(step), 1, depth)

    def _prompts(self, words: Sequence[str]) -> list[list[int]]:
        for word in words:
            if word not in self._ids:
                self._ids[word] = self.prompt.ids(word)
        return [self._ids[word] for word in words]


def _different(words: Sequence[str], wanted: int, taken: set[str], rng: random.Random) -> list[int]:
    """Places of `wanted` words that differ from each other and from those taken, which they join; fewer of few."""
    chosen: list[int] = []
    for _ in range(50 * wanted):
        if len(chosen) == wanted:
            break
        n = rng.randrange(len(words))
        if words[n].casefold() not in taken:
            taken.add(words[n].casefold())
            chosen.append(n)
    return chosen


def augmented(pictures: Tensor, real: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised float pictures (B, 3, 32, 128): colours shifted, the last `real` of them also moved and turned."""
    x = pictures.permute(0, 3, 1, 2).float() / 255
    if real:
        x = torch.cat([x[:-real], _moved(x[-real:])])
    B = len(x)
    upside = torch.rand(B, 1, 1, 1, device=x.device) < 0.1
    x = torch.where(upside, 1 - x, x)
    gain = 1 + 0.2 * torch.randn(B, 3, 1, 1, device=x.device)
    shift = 0.1 * torch.randn(B, 3, 1, 1, device=x.device)
    x = ((x - 0.5) * gain + 0.5 + shift).clamp(0, 1)
    return _normalised(x, mean, std)


def plain(pictures: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised float pictures (B, 3, 32, 128) of uint8 ones (B, 32, 128, 3), otherwise as they are."""
    return _normalised(pictures.permute(0, 3, 1, 2).float() / 255, mean, std)


def _normalised(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    return (x - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(std).view(3, 1, 1)


def _moved(x: Tensor) -> Tensor:
    """Scaled, shifted, slanted and turned by a little."""
    B = len(x)
    noise = torch.randn(B, 6, device=x.device)
    across = torch.stack([1 + 0.05 * noise[:, 0], 0.03 * noise[:, 1], 0.03 * noise[:, 2]], 1)
    down = torch.stack([0.10 * noise[:, 3], 1 + 0.10 * noise[:, 4], 0.08 * noise[:, 5]], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
