"""Word images to tokens in the cache, once: `dptr finetune --freeze` and what it evaluates on.

As photographs go to a bank, but stretched to the recogniser's size. A word image is known by its bytes, so sets that
share images, and further experiments, encode nothing twice.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from cache.bank import Bank
from cache.lock import writing
from cache.space import Space
from machine import autocast
from pipeline.embed_images import Tally, embed_into
from pipeline.stage import MARGIN, Say, check_room, size
from vision import ImageEncoder, stretched


class WordTower:
    """An image tower at the size of word images, in the space's precision."""

    def __init__(self, tower: ImageEncoder, device: torch.device, precision: str) -> None:
        self._tower, self._device, self._precision = tower.to(device).eval(), device, precision

    @property
    def preprocess(self) -> Callable[[Any], Tensor]:
        """Stretched to the tower's size, uint8."""
        return lambda picture: stretched(picture, self._tower.config.image_size)

    @torch.inference_mode()
    def image_tokens(self, pictures: Tensor) -> NDArray[np.float16]:
        """Tokens (B, T, E) of pixels (B, 3, H, W) uint8."""
        with autocast(self._device, self._precision):
            tokens = self._tower(self._tower.normalised(pictures.to(self._device)))
        return np.asarray(tokens.half().cpu().numpy())


def embed_crops(
    space: Space,
    tower: ImageEncoder,
    device: torch.device,
    pictures: Iterable[tuple[str, bytes]],
    count: int,
    say: Say,
) -> Bank:
    """The bank of word images of this tower's size, with all of `pictures` (name, encoded bytes) in it.

    Those that cannot be decoded are listed in the bank. Raises DptrError when the disk is too small, when another
    process is writing the space, or when a write fails; committed shards stay.
    """
    (rows, columns), tally = tower.config.grid, Tally()
    shape = (rows * columns + tower.config.class_token, tower.config.tokens_width)
    with writing(space.folder):
        bank = space.crops(tower.config.image_size)
        planned = max(0, count - bank.rows) * shape[0] * shape[1] * 2
        free = check_room(space.folder, planned + MARGIN)
        say(f"{count:,} word images, {shape[0]} x {shape[1]} features each; {bank.rows:,} in the cache already")
        say(f"at most {size(planned)} to write, {size(free)} free on the disk")
        word_tower = WordTower(tower, device, space.fingerprint.compute)
        with tqdm(pictures, "encode", count, unit="picture", delay=2) as progress:
            embed_into(bank, word_tower, progress, shape, tally)
        bank.record_skipped(tally.skipped)
    tower.to("cpu")
    return bank
