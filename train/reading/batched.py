"""Reads many memories or many word images with a model, batch by batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from models.decoders import TextDecoder, confidence
from models.device import autocast
from models.recogniser import Recogniser
from train.data.crop_batches import CachedTokens, Pictures, load
from train.data.crops import Crops
from train.data.word_batches import MemoryLoader
from train.data.words import Words

MEMORIES, CROPS = 256, 64  # in one pass of the model
Load = Callable[[Sequence[int]], tuple[Tensor, Tensor | None]]  # word numbers to memory (B, M, D) and its mask


def read_memories(decoder: TextDecoder, loader: MemoryLoader, words: Words, precision: str) -> list[tuple[str, float]]:
    """What a decoder reads from unperturbed memories, and how sure it is.

    In the order of `words`.
    """
    return read_loaded(decoder, lambda part: loader.load(words.take(part)), words.labels, precision)


def read_loaded(decoder: TextDecoder, load: Load, labels: Sequence[str], precision: str) -> list[tuple[str, float]]:
    """The same of memories that `load` gives by the numbers of the labels, words of like length together."""
    decoder.eval()
    order = sorted(range(len(labels)), key=lambda n: len(labels[n]))
    readings = [("", 0.0)] * len(labels)
    with tqdm(total=len(labels), desc="read", unit="word", delay=2, leave=False) as progress:
        for start in range(0, len(order), MEMORIES):
            part = order[start : start + MEMORIES]
            memory, mask = load(part)
            with autocast(memory.device, precision):
                ids, shares = decoder.read(memory, mask)
            for n, text, sure in zip(part, decoder.charset.decode(ids), confidence(shares).tolist(), strict=True):
                readings[n] = (text, sure)
            progress.update(len(part))
    return readings


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
    batches = [range(n, min(n + CROPS, len(crops))) for n in range(0, len(crops), CROPS)]
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
