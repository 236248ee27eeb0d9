"""Measures how a run reads: `dptr evaluate RUN [--data SET...]`.

A fine-tuned run reads word images. A pre-trained one reads memories: the held-out words of its cache, or any words.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cache.errors import DptrError
from cache.space import Space
from models.device import choose_device
from models.image_encoder import ImageEncoder
from sources.labelled import Labelled
from train.data.crop_batches import WORKERS
from train.data.crops import usable
from train.data.word_batches import MemoryLoader
from train.data.words import read_words, split
from train.ranks import ALONE, Ranks
from train.reading.batched import read_crops, read_loaded, read_memories
from train.reading.result import Evaluation, set_result
from train.run import kept_perturbation, load_recogniser, load_run, zero_label_recogniser

States = Callable[[Sequence[str]], tuple[NDArray[np.float16], NDArray[np.int64]]]  # words to states and their lengths


def evaluate(
    run: Path,
    cache: Path | None = None,
    corpora: list[str] | None = None,
    limit: int | None = None,
    device: str = "auto",
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Read the held-out words of a pre-trained run's cache with its best checkpoint.

    Of `corpora` other than the run's own, too, only held-out words are read, which the run cannot have trained on;
    `limit` takes the first words in the order of their hash. Of several ranks, each reads its share, and all return the
    whole. Raises WrongUse for a run or cache that does not exist, or for a cache of another encoder; DptrError if no
    word is held out.
    """
    decoder, config, step = load_run(run)
    space = config.space(cache)
    options = config.pretraining
    names = corpora or options.corpus
    words, dropped = read_words(space, names, decoder.charset, decoder.config.max_length)
    _, held_out = split(words, options.held_out)
    if not len(held_out):
        raise DptrError(f"none of the {len(words):,} words of {', '.join(names)} is held out: use a larger corpus.")
    held_out = held_out.take(range(len(held_out))[:limit])
    target = choose_device(device)
    loader = MemoryLoader(space, target, options.zero_memory)
    readings = read_memories(decoder.to(target), loader, held_out, "fp32", kept_perturbation(run, config), ranks)
    return Evaluation(str(run), step, [set_result(f"held-out words of {', '.join(names)}", readings, dropped)])


def evaluate_texts(
    run: Path,
    sets: Sequence[Labelled],
    states: States,
    space: Space,
    limit: int | None,
    device: str,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Read any words with a pre-trained run, from memories that `states` makes on the spot; ranks as in `evaluate`.

    Raises WrongUse for a run that does not exist or a space of another encoder, DptrError if no word is usable.
    """
    decoder, config, step = load_run(run)
    config.check_space(space)
    target = choose_device(device)
    loader = MemoryLoader(space, target, config.pretraining.zero_memory)
    decoder.to(target)
    perturbation, results = kept_perturbation(run, config), []
    for one in sets:
        crops = usable([one], decoder.charset, decoder.config.max_length, strict=False)
        labels = crops.labels[:limit]

        def load(part: Sequence[int], labels: list[str] = labels) -> tuple[Tensor, Tensor | None]:
            return perturbation.evaluated(*loader.padded(*states([labels[n] for n in part])))

        readings = read_loaded(decoder, load, labels, "fp32", ranks)
        readings = [replace(r, number=int(crops.numbers[r.number])) for r in readings]
        results.append(set_result(one.name, readings, crops.dropped))
    return Evaluation(str(run), step, results)


def evaluate_crops(
    run: Path,
    sets: Sequence[Labelled],
    limit: int | None = None,
    device: str = "auto",
    checkpoint: str = "best.pt",
    tower: ImageEncoder | None = None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Read word images with a fine-tuned run; `limit` takes that many of each set, evenly spaced.

    With the image tower of its space, a run that is only pre-trained reads them too. Of several ranks, each reads its
    share, and all return the whole.

    Labels with characters that the run cannot write count as misread. Left out and counted are labels that are too long
    for it, empty ones unless it was trained with `blank`, and pictures that cannot be decoded. Raises WrongUse for a
    run that does not exist, DptrError if no image is usable.
    """
    recogniser, config, step = zero_label_recogniser(run, tower) if tower else load_recogniser(run, checkpoint)
    longest, blank = recogniser.config.decoder.max_length, getattr(config.options, "blank", False)
    target = choose_device(device)
    recogniser.to(target)
    results = []
    for one in sets:
        crops = usable([one], recogniser.charset, longest, strict=False, blank=blank).evenly(limit)
        workers = max(1, WORKERS // ranks.here)
        readings, broken = read_crops(recogniser, crops, target, "fp32", workers, ranks=ranks)
        results.append(set_result(one.name, readings, crops.dropped + broken))
    return Evaluation(str(run), step, results)
