"""Reads many word images with a recogniser: batched, decoded ahead by worker processes."""

from dataclasses import dataclass, field

import torch
from tqdm import tqdm

from models.device import autocast
from models.recogniser import Recogniser
from train.crops import Crops, Pictures, load
from train.features import CachedTokens

BATCH = 64


@dataclass
class Readings:
    """Text and confidence by crop number, and why the others could not be read."""

    texts: dict[int, str] = field(default_factory=dict)
    confidences: dict[int, float] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)


def read_crops(
    recogniser: Recogniser,
    crops: Crops,
    device: torch.device,
    precision: str,
    workers: int,
    tokens: CachedTokens | None = None,
) -> Readings:
    """Read every crop, from its picture or from its tokens in the cache."""
    recogniser.eval()
    batches = [range(n, min(n + BATCH, len(crops))) for n in range(0, len(crops), BATCH)]
    if tokens:
        made = tokens.batches(crops, batches)
    else:
        made = load(Pictures(crops, recogniser.config.vision.image_size), batches, workers)
    found = Readings()
    with tqdm(total=len(crops), desc="read", unit="word", delay=2, leave=False) as progress:
        for batch in made:
            found.broken |= batch.broken
            if len(batch):
                with autocast(device, precision):
                    texts, confidences = recogniser.read(batch.pictures.to(device))
                found.texts |= dict(zip(batch.numbers, texts, strict=True))
                found.confidences |= dict(zip(batch.numbers, confidences, strict=True))
            progress.update(len(batch) + len(batch.broken))
    return found
