"""Real word crops from the field's LMDBs, as arrays."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sources.cleaning import hash_share
from sources.drawn.render import HEIGHT, WIDTH
from sources.lmdbs import lmdb_labels, lmdb_pictures
from sources.pictures import decode

HELD_OUT = 0.10  # share of crops, by the hash of their bytes, that are never trained on


@dataclass
class Crops:
    """Pictures of words with their labels."""

    pictures: NDArray[np.uint8]  # (N, 32, 128, 3)
    labels: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def joined(cls, parts: Sequence["Crops"]) -> "Crops":
        return cls(np.concatenate([p.pictures for p in parts]), [label for p in parts for label in p.labels])

    def where(self, keep: Iterable[bool]) -> "Crops":
        chosen = np.flatnonzero(np.fromiter(keep, bool))
        return Crops(self.pictures[chosen], [self.labels[n] for n in chosen])


def read_crops(folders: Iterable[Path]) -> tuple[Crops, Crops]:
    """(training, held-out) crops, stretched to 32 x 128, spaces stripped from labels; broken ones are left out."""
    pictures, labels, kept = [], [], []
    for folder in folders:
        named = list(lmdb_labels(folder))  # first: one process cannot have an LMDB open twice
        for (_, data), label in zip(lmdb_pictures(folder), named, strict=True):
            label = "".join(label.split())
            try:
                picture = decode(data)
            except ValueError:
                continue
            if label:
                pictures.append(np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)))
                labels.append(label)
                kept.append(hash_share(data.hex()) >= HELD_OUT)
    crops = Crops(np.stack(pictures) if pictures else np.empty((0, HEIGHT, WIDTH, 3), np.uint8), labels)
    return crops.where(kept), crops.where(not k for k in kept)
