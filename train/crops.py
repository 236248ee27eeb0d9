"""Word images to train on or to measure with: which are usable, and batches of them made in worker processes.

Shape letters: B batch, H rows, W columns.
"""

import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cache.errors import DptrError
from models.charset import Charset
from models.image_encoder import Pair, stretched
from sources.cleaning import clean, clean_unicode
from sources.labelled import Labelled
from sources.photos import decode
from train.augment import augmented
from train.batches import Plan

WORKERS = min(16, max(1, (os.cpu_count() or 2) - 1))  # processes that make pictures ahead, if no number is asked for


@dataclass(frozen=True)
class Crops:
    """Usable word images: crop n is picture `numbers[n]` of `sets[of[n]]`, and `labels[n]` stands on it."""

    sets: list[Labelled]
    of: NDArray[np.int32]
    numbers: NDArray[np.int64]
    labels: list[str]
    dropped: Counter[str]  # labels that are not usable, by reason

    def __len__(self) -> int:
        return len(self.labels)

    def picture(self, n: int) -> bytes:
        """The encoded picture of crop n, empty if there is none."""
        return self.sets[self.of[n]].picture(int(self.numbers[n]))

    def where(self, chosen: NDArray[np.int64]) -> "Crops":
        """Only the crops `chosen`, by their numbers here."""
        labels = [self.labels[n] for n in chosen]
        return Crops(self.sets, self.of[chosen], self.numbers[chosen], labels, self.dropped)

    def evenly(self, count: int | None) -> "Crops":
        """So many of them, spread evenly; all, if there are no more or `count` is None."""
        if count is None or count >= len(self):
            return self
        return self.where(np.linspace(0, len(self) - 1, count).astype(np.int64))


def usable(sets: Sequence[Labelled], charset: Charset, max_length: int, strict: bool = True) -> Crops:
    """The crops whose labels a decoder can write, as it would write them; the others are counted by reason.

    Whitespace is taken out. An ASCII charset folds letters to ASCII (NFKD), as the field does; any other keeps them.
    With `strict` off, labels with characters outside the charset stay: they count when reading is measured.
    DptrError if nothing is usable.
    """
    of: list[int] = []
    numbers: list[int] = []
    labels: list[str] = []
    dropped: Counter[str] = Counter()
    folding = clean if charset.characters.isascii() else clean_unicode
    for which, one in enumerate(sets):
        for number, text in enumerate(one.labels):
            label = folding(text)
            label = charset.fold(label) if strict else label
            if not label:
                dropped["without any ASCII character" if text.strip() else "without a label"] += 1
            elif len(label) > max_length:
                dropped[f"longer than {max_length} characters"] += 1
            elif strict and not charset.holds(label):
                dropped["with characters outside the charset"] += 1
            else:
                of.append(which)
                numbers.append(number)
                labels.append(label)
    if not labels:
        raise DptrError(f"no usable word image in {', '.join(s.name for s in sets)}: {dict(dropped)}.")
    return Crops(list(sets), np.array(of, np.int32), np.array(numbers, np.int64), labels, dropped)


def schedule(crops: Crops, weights: Sequence[float], batch: int, seed: int, epoch: int) -> Iterator[NDArray[np.int64]]:
    """Batches of crop numbers of similar label length for one epoch, a function of (seed, epoch) alone.

    A set of weight 2 comes twice an epoch; of one of weight 0.5 another half comes in each.
    """
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    chosen = []
    for which, weight in enumerate(weights):
        own = np.flatnonzero(crops.of == which)
        whole = int(weight)
        rest = random.permutation(own)[: round((weight - whole) * len(own))]
        chosen += [own] * whole + [rest]
    numbers = np.concatenate(chosen)
    lengths = np.array([len(label) for label in crops.labels])[numbers]
    for indices in Plan(batch, seed).batches(lengths, epoch):
        yield numbers[indices]


@dataclass(frozen=True)
class Spelled:
    """Labels of a batch."""

    labels: list[str]


@dataclass
class CropBatch:
    """Pictures (B, 3, H, W) uint8 or tokens (B, T, E), the numbers of their crops, and their labels."""

    pictures: Tensor
    numbers: list[int]
    labels: list[str]
    broken: dict[int, str] = field(default_factory=dict)  # crops that could not be read: number to reason
    number: int = 0  # of the batch in the run

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def words(self) -> "Spelled":
        """The labels without the pictures."""
        return Spelled(self.labels)

    def pin_memory(self) -> "CropBatch":
        """Called by torch's loader where there is a GPU."""
        self.pictures = self.pictures.pin_memory()
        return self


class Pictures(Dataset[CropBatch]):
    """Makes whole batches: item (draw, crop numbers) is a CropBatch, changed at random as `draw` says."""

    def __init__(self, crops: Crops, image_size: Pair, strength: float = 0.0, seed: int = 0) -> None:
        self.crops, self.image_size, self.strength, self.seed = crops, image_size, strength, seed

    def __getitem__(self, item: tuple[int, Sequence[int]]) -> CropBatch:
        draw, numbers = item
        rng = random.Random(f"{self.seed} {draw}")
        made, kept, broken = [], [], {}
        for n in (int(n) for n in numbers):
            try:
                picture = decode(self.crops.picture(n))
            except ValueError as error:
                broken[n] = str(error)
                continue
            made.append(stretched(augmented(picture, self.strength, rng), self.image_size))
            kept.append(n)
        pictures = torch.stack(made) if made else torch.empty(0, 3, *self.image_size, dtype=torch.uint8)
        return CropBatch(pictures, kept, [self.crops.labels[n] for n in kept], broken, draw)


def load(pictures: Pictures, batches: Iterable[Sequence[int]], workers: int, first: int = 0) -> Iterator[CropBatch]:
    """CropBatches in the order of `batches`, made by worker processes ahead of whoever takes them.

    What a batch holds depends on its number alone (counted from `first`), not on how many workers there are.
    """
    items = ((first + n, numbers) for n, numbers in enumerate(batches))
    more: dict[str, Any] = {"prefetch_factor": 4, "persistent_workers": False} if workers else {}
    pinned = torch.cuda.is_available()
    yield from DataLoader(
        pictures, batch_size=None, sampler=items, num_workers=workers, collate_fn=_as_it_is, pin_memory=pinned, **more
    )


def _as_it_is(batch: Any) -> Any:
    return batch
