"""Tokens of word images that a frozen encoder gave once: read from the cache instead of running the encoder again."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from cache.bank import Bank, picture_key
from train.crops import CropBatch, Crops


class CachedTokens:
    """The tokens (T, E) float16 of pictures in a bank, found by the picture's own bytes.

    Every shard is read once and compared with its check when this is made; after that rows are mapped.
    """

    def __init__(self, bank: Bank) -> None:
        """Damaged if a shard is not what was written."""
        self._maps: list[NDArray[np.float16]] = []
        self._place: dict[bytes, tuple[int, int]] = {}
        keys = bank.keys().tolist()
        for shard in bank.shards():
            shard.read("features")
            for row in range(shard.entry.rows):
                self._place[keys[len(self._place)]] = (len(self._maps), row)
            self._maps.append(shard.map("features"))
        self._found: list[tuple[Crops, list[tuple[int, int] | None]]] = []  # where each crop asked for so far lies

    def batches(self, crops: Crops, batches: Iterable[Sequence[int]], first: int = 0) -> Iterator[CropBatch]:
        """As `train.crops.load`, with tokens (B, T, E) float16 for pictures."""
        places = next((found for asked, found in self._found if asked is crops), None)
        if places is None:
            places = [self._place.get(_key(crops.picture(n))) for n in range(len(crops))]
            self._found.append((crops, places))
        for number, numbers in enumerate(batches, first):
            kept = [int(n) for n in numbers if places[n] is not None]
            broken = {int(n): "it could not be embedded" for n in numbers if places[n] is None}
            rows = [self._maps[shard][row] for shard, row in (places[n] for n in kept)]  # type: ignore[misc]
            tokens = torch.from_numpy(np.stack(rows)) if rows else torch.empty(0)
            yield CropBatch(tokens, kept, [crops.labels[n] for n in kept], broken, number)


def _key(picture: bytes) -> bytes:
    return picture_key(picture).rstrip(b"\0")  # numpy drops zeros at the end
