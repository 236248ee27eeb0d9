"""Reads many memories or many word images with a model, batch by batch."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from cache.errors import DptrError
from models.decoders import TextDecoder, confidence
from models.device import autocast
from models.image_encoder import VisionConfig
from models.recogniser import Recogniser
from train.data.crop_batches import CachedTokens, CropBatch, Pictures, load
from train.data.crops import Crops
from train.data.word_batches import MemoryLoader
from train.data.words import Words
from train.perturb import Perturbation
from train.ranks import ALONE, Ranks, in_turn
from train.reading.result import Reading

MEMORIES, CROPS = 256, 64  # in one batch
UNCHANGED = Perturbation()
Load = Callable[[Sequence[int]], tuple[Tensor, Tensor | None]]  # word numbers to memory (B, M, D) and its mask


def read_memories(
    decoder: TextDecoder,
    loader: MemoryLoader,
    words: Words,
    precision: str,
    perturbation: Perturbation = UNCHANGED,
    ranks: Ranks = ALONE,
) -> list[Reading]:
    """What a decoder reads from memories, in the order of `words`; of the perturbation it has what is not random."""
    return read_loaded(
        decoder, lambda part: perturbation.evaluated(*loader.load(words.take(part))), words.labels, precision, ranks
    )


def read_loaded(
    decoder: TextDecoder, load: Load, labels: Sequence[str], precision: str, ranks: Ranks = ALONE
) -> list[Reading]:
    """The same for memories that `load` gives by label number; words of similar length are read together.

    Several ranks each read their share, and return all.
    """
    decoder.eval()
    order = sorted(range(len(labels)), key=lambda n: len(labels[n]))
    parts = [order[start : start + MEMORIES] for start in range(0, len(order), MEMORIES)][ranks.rank :: ranks.size]
    found = {}
    show = {"total": sum(map(len, parts)), "desc": "read", "unit": "word", "delay": 2, "leave": False}
    with tqdm(**show, disable=not ranks.first) as progress:
        for part in parts:
            memory, mask = load(part)
            with autocast(memory.device, precision):
                ids, shares = decoder.read(memory, mask)
            for n, text, sure in zip(part, decoder.charset.decode(ids), confidence(shares).tolist(), strict=True):
                found[n] = Reading(labels[n], text, sure, n)
            progress.update(len(part))
    all_of_them = {n: reading for share in ranks.each(found) for n, reading in share.items()}
    return [all_of_them[n] for n in range(len(labels))]


def in_order(crops: Crops, ranks: Ranks = ALONE) -> list[range]:
    """The numbers of all crops, in batches; of several ranks, each has its share of the batches."""
    return [range(n, min(n + CROPS, len(crops))) for n in range(0, len(crops), CROPS)][ranks.rank :: ranks.size]


def load_in_order(crops: Crops, vision: VisionConfig, workers: int, ranks: Ranks = ALONE) -> Iterator[CropBatch]:
    """All crops as they enter the image tower, batch by batch; of several ranks, each has its share of the batches."""
    return load(Pictures(crops, vision.image_size, turn_tall=vision.turn_tall), in_order(crops, ranks), workers)


def read_crops(
    recogniser: Recogniser,
    crops: Crops,
    device: torch.device,
    precision: str,
    workers: int,
    tokens: CachedTokens | None = None,
    ranks: Ranks = ALONE,
) -> tuple[list[Reading], Counter[str]]:
    """Read every crop, from its picture or its cached tokens; returns readings, and counts of broken crops by reason.

    Several ranks each read their share, and return all. Raises DptrError if all are broken.
    """
    recogniser.eval()
    vision = recogniser.config.vision
    made = tokens.batches(crops, in_order(crops, ranks)) if tokens else load_in_order(crops, vision, workers, ranks)
    read: list[list[Reading]] = []  # by batch
    broken: Counter[str] = Counter()
    show = {"total": len(crops) // ranks.size, "desc": "read", "unit": "word", "delay": 2, "leave": False}
    with tqdm(**show, disable=not ranks.first) as progress:
        for batch in made:
            broken.update(batch.broken.values())
            read.append([])
            if len(batch):
                with autocast(device, precision):
                    texts, confidences = recogniser.read(batch.pictures.to(device))
                places = crops.numbers[batch.numbers].tolist()
                read[-1] += map(Reading, batch.labels, texts, confidences, places)
            progress.update(len(batch) + len(batch.broken))
    shares = ranks.each((read, broken))
    readings = in_turn([share for share, _ in shares])
    broken = sum((found for _, found in shares), Counter())
    if not readings:
        names = ", ".join(one.name for one in crops.sets)
        raise DptrError(f"no picture of {names} could be read: {' or '.join(broken)}.")
    return readings, broken
