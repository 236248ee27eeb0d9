"""Batches of word images: pictures prepared by worker processes, or a frozen encoder's tokens from the cache.

Shape letters: B batch, H rows, W columns, T tokens, E width.
"""

import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cache.bank import Bank, picture_key
from cache.keys import key_bytes
from models.image_encoder import Pair, stretched
from sources.pictures import decode
from train.data.crops import Crops
from train.data.plan import Plan
from train.ranks import ALONE, Ranks

WORKERS = min(16, max(1, (os.cpu_count() or 2) - 1))  # processes that prepare pictures, by default


Numbers = Sequence[int] | NDArray[np.int64]


def schedule(
    crops: Crops, weights: Sequence[float], plan: Plan, epoch: int, start: int = 0
) -> Iterator[NDArray[np.int64]]:
    """Yield one epoch's batches of crop numbers from number `start` on, a function of plan and epoch alone.

    Crops of a batch have labels of similar length. Each epoch sees a set of weight 2 twice, and a different random half
    of a set of weight 0.5.
    """
    numbers = _chosen(crops, weights, plan.seed, epoch)
    lengths = np.array([len(label) for label in crops.labels])[numbers]
    for indices in plan.batches(lengths, epoch, start):
        yield numbers[indices]


def schedules(crops: Crops, weights: Sequence[float], plan: Plan, first: int) -> Iterator[NDArray[np.int64]]:
    """Yield a run's batches of crop numbers without end, epoch after epoch, from number `first` on."""
    begun, start = plan.place(first, len(_chosen(crops, weights, plan.seed, 0)))
    for epoch in count(begun):
        yield from schedule(crops, weights, plan, epoch, start)
        start = 0


def _chosen(crops: Crops, weights: Sequence[float], seed: int, epoch: int) -> NDArray[np.int64]:
    """The crops that an epoch shows, as many in each."""
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    chosen = []
    for which, weight in enumerate(weights):
        own = np.flatnonzero(crops.of == which)
        whole = int(weight)
        rest = random.permutation(own)[: round((weight - whole) * len(own))]
        chosen += [own] * whole + [rest]
    return np.concatenate(chosen)


@dataclass
class CropBatch:
    """Pictures (B, 3, H, W) uint8 or tokens (B, T, E), the numbers of their crops, and their labels."""

    pictures: Tensor
    numbers: list[int]
    labels: list[str]
    broken: dict[int, str] = field(default_factory=dict)  # crops that could not be read: number to reason
    number: int = 0  # of this batch in the run
    unlabelled: "CropBatch | None" = None  # pictures without labels to learn from in the same step, as `TwoViews`

    def __len__(self) -> int:
        return len(self.labels)

    def pin_memory(self) -> "CropBatch":
        """Called by torch's DataLoader if there is a GPU."""
        self.pictures = self.pictures.pin_memory()
        return self


class Pictures(Dataset[CropBatch]):
    """Makes batches: the item for (draw, crop numbers) is a CropBatch, the numbers a rank's share of a whole batch.

    Each picture is augmented at random, with a seed of `draw` and its place in the whole batch. Crops of sets that are
    drawn are drawn with that seed, and not augmented: they vary enough.
    """

    def __init__(
        self,
        crops: Crops,
        image_size: Pair,
        strength: float = 0.0,
        seed: int = 0,
        turn_tall: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        self.crops, self.image_size, self.strength, self.seed = crops, image_size, strength, seed
        self.turn_tall, self.ranks = turn_tall, ranks
        if strength:
            from train.data.augment import augmented  # takes torchvision, two seconds that reading does not need

            self._augmented = augmented

    def __getitem__(self, item: tuple[int, Numbers]) -> CropBatch:
        draw, numbers = item
        made, labels, kept, broken = [], [], [], {}
        for place, n in enumerate(map(int, numbers)):
            rng = random.Random(f"{self.seed} {draw} {self.ranks.rank + place * self.ranks.size}")
            try:
                picture, label = self._made(n, rng)
            except ValueError as error:
                broken[n] = str(error)
                continue
            made.append(picture)
            labels.append(label)
            kept.append(n)
        pictures = torch.stack(made) if made else torch.empty(0, 3, *self.image_size, dtype=torch.uint8)
        return CropBatch(pictures, kept, labels, broken, draw)

    def _made(self, n: int, rng: random.Random) -> tuple[Tensor, str]:
        """The picture (3, H, W) uint8 of crop n, and its label."""
        if draw := self.crops.drawing(n):
            drawn, label = draw(rng, self.image_size)
            return torch.from_numpy(drawn).permute(2, 0, 1), label
        picture = decode(self.crops.picture(n))
        changed = self._augmented(picture, self.strength, rng) if self.strength else picture
        return stretched(changed, self.image_size, self.turn_tall), self.crops.labels[n]


class TwoViews(Pictures):
    """As Pictures, without labels, and pictures are (B, 6, H, W): each as it is, and the same augmented."""

    def _made(self, n: int, rng: random.Random) -> tuple[Tensor, str]:
        picture = decode(self.crops.picture(n))
        views = picture, self._augmented(picture, self.strength, rng)
        return torch.cat([stretched(view, self.image_size, self.turn_tall) for view in views]), ""


def load(pictures: Pictures, batches: Iterable[Numbers], workers: int, first: int = 0) -> Iterator[CropBatch]:
    """Yield CropBatches in the order of `batches`, prepared ahead by worker processes.

    The contents of a batch depend on its number alone (counted from `first`), not on the number of workers.
    """
    items = ((first + n, numbers) for n, numbers in enumerate(batches))
    more: dict[str, Any] = {"prefetch_factor": 4, "persistent_workers": False} if workers else {}
    pinned = torch.cuda.is_available()
    made = iter(
        DataLoader(
            pictures,
            batch_size=None,
            sampler=items,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pinned,
            **more,
        )
    )
    try:
        yield from made
    finally:
        if not pinned:
            _end(made)


def _end(made: Any) -> None:
    """End the workers of a DataLoader's iterator now: torch would wait up to five seconds for each to end its batch.

    One that has not begun yet dies of the signal, which torch would raise as an error if it still watched.
    """
    if getattr(made, "_worker_pids_set", False):
        torch._C._remove_worker_pids(id(made))
        made._worker_pids_set = False
    for worker in getattr(made, "_workers", []):
        worker.terminate()


def _as_it_is(batch: Any) -> Any:
    return batch


class CachedTokens:
    """The tokens (T, E) float16 of pictures in a bank, looked up by the picture's bytes."""

    def __init__(self, bank: Bank) -> None:
        """Read and verify every shard once; after that, rows are memory-mapped.

        Raises Damaged if a shard is not what was written.
        """
        self._maps: list[NDArray[np.float16]] = []
        self._place: dict[bytes, tuple[int, int]] = {}
        keys = key_bytes(bank.keys())
        for shard in bank.shards():
            shard.read("features")
            for row in range(shard.entry.rows):
                self._place[keys[len(self._place)]] = (len(self._maps), row)
            self._maps.append(shard.map("features"))
        self._found: list[tuple[Crops, list[tuple[int, int] | None]]] = []  # where the crops asked for so far lie

    def batches(self, crops: Crops, batches: Iterable[Numbers], first: int = 0) -> Iterator[CropBatch]:
        """As `load`, with tokens (B, T, E) float16 instead of pictures."""
        places = next((found for asked, found in self._found if asked is crops), None)
        if places is None:
            places = [self._place.get(picture_key(crops.picture(n))) for n in range(len(crops))]
            self._found.append((crops, places))
        for number, numbers in enumerate(batches, first):
            kept = [int(n) for n in numbers if places[n] is not None]
            broken = {int(n): "it could not be embedded" for n in numbers if places[n] is None}
            rows = [self._maps[shard][row] for shard, row in (places[n] for n in kept)]  # type: ignore[misc]
            tokens = torch.from_numpy(np.stack(rows)) if rows else torch.empty(0)
            yield CropBatch(tokens, kept, [crops.labels[n] for n in kept], broken, number)
