"""Encodes word images into the cache, once, for `dptr finetune --freeze` and the sets it evaluates on.

They are stored as photographs are stored in a bank, but stretched to the recogniser's size. A word image is identified
by its bytes, so nothing is encoded twice, whether sets share images or another experiment uses them.
"""

from collections.abc import Generator, Iterable
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from cache.bank import Bank
from cache.lock import writing
from cache.space import Space
from models.device import autocast
from models.image_encoder import ImageEncoder
from pipeline.picture_shards import Tally, embed_into
from pipeline.stage import MARGIN, Say, check_room, size
from pipeline.towers.replicas import Replicas
from sources.pictures import decode

L = TypeVar("L")


class WordTower:
    """An image tower at the size of word images, in the space's precision."""

    def __init__(self, tower: ImageEncoder, device: torch.device, precision: str) -> None:
        self._tower, self.device, self._precision = tower.to(device).eval(), device, precision
        self._replicas = Replicas([device], lambda device: self._tokens)

    def pixels(self, data: bytes) -> Tensor:
        """An encoded picture stretched to the tower's size: (3, H, W) uint8. Raises ValueError as `decode` does."""
        return self._tower.config.pixels(decode(data))

    def encoded(self, batches: Iterable[tuple[L, Tensor]]) -> Generator[tuple[L, NDArray[np.float16]], None, None]:
        """(label, tokens (B, T, E)) of each batch (label, pixels (B, 3, H, W) uint8), in order."""
        for label, tokens in self._replicas.map((label, (pictures,)) for label, pictures in batches):
            yield label, tokens.numpy()

    def _tokens(self, pictures: Tensor) -> Tensor:
        with autocast(self.device, self._precision):
            return torch.as_tensor(self._tower(self._tower.normalised(pictures)))


def embed_crops(
    space: Space,
    tower: ImageEncoder,
    device: torch.device,
    pictures: Iterable[tuple[str, bytes]],
    count: int,
    say: Say,
) -> Bank:
    """The bank of word images of this tower's size, with all of `pictures` (name, encoded bytes) added to it.

    Pictures that cannot be decoded are listed in the bank. Raises DptrError when the bank's pictures were decoded
    differently, when the disk is too small, when another process is writing the space, or when a write fails;
    committed shards stay.
    """
    tally, shape = Tally(), (tower.config.tokens, tower.config.tokens_width)
    with writing(space.folder):
        bank = space.crops(tower.config.image_size)
        planned = max(0, count - bank.rows) * shape[0] * shape[1] * 2
        free = check_room(space.folder, planned + MARGIN)
        say(f"{count:,} word images, {shape[0]} x {shape[1]} features each; {bank.rows:,} already cached")
        say(f"at most {size(planned)} to write, {size(free)} free on the disk")
        word_tower = WordTower(tower, device, space.fingerprint.compute)
        with tqdm(pictures, "encode", count, unit="picture", delay=2) as progress:
            embed_into(bank, word_tower, progress, shape, tally)
        bank.record_skipped(tally.skipped)
    tower.to("cpu")
    return bank
