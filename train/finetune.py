"""Fine-tunes a recogniser on labelled word images: `dptr finetune --init RUN --train LMDB --val LMDB --out RUN`.

Image encoder, FMU and pre-trained decoder learn together, with the loss of pre-training.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, count, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cache import __version__
from cache.errors import WrongUse
from cache.fingerprint import Fingerprint
from cache.space import Space
from models.decoders import DecoderConfig, configure
from models.device import choose_device, choose_precision
from models.image_encoder import ImageEncoder, Pair, VisionConfig, released_vit
from models.recogniser import Recogniser, RecogniserConfig, groups
from sources.labelled import Labelled
from train.data.crop_batches import WORKERS, CachedTokens, CropBatch, Pictures, load, schedule
from train.data.crops import Crops, usable
from train.finetune_options import FinetuneOptions, check
from train.loop import Found, Loop, Pace
from train.reading.batched import read_crops
from train.reading.result import scored
from train.recorder import Run
from train.run import load_run


@dataclass(frozen=True)
class FinetuneSummary:
    """How a run ended."""

    run: str
    crops: int  # to train on
    val: int
    dropped: dict[str, int]  # training crops not used, by reason
    steps: int
    seconds: float  # of training, evaluations left out
    crops_per_second: float
    waiting: float  # share of that time in which no batch was ready
    loss: float
    best_step: int
    scores: dict[str, float]  # of the best checkpoint


@dataclass(frozen=True)
class Material:
    """What a run learns from: its image encoder (None: the released vit) and word images, one list for each option."""

    train: Sequence[Sequence[Labelled]]
    val: Sequence[Labelled]
    space: Space | None = None
    tower: ImageEncoder | None = None
    tokens: CachedTokens | None = None  # of all pictures, where the encoder is frozen


def finetune(options: FinetuneOptions, material: Material, say: Callable[[str], None]) -> FinetuneSummary:
    """Train a recogniser and write its run folder.

    Raises WrongUse for options that contradict each other or name what is not there, DptrError for data that cannot be
    used, a loss that is not finite, or a write that fails; checkpoints written before stay.
    """
    check(options)
    device = choose_device(options.device)
    torch.manual_seed(options.seed)
    recogniser, init = build(options, material)
    charset, longest = recogniser.charset, recogniser.config.decoder.max_length
    sets = [one for part in material.train for one in part]
    weights = [w for part, w in zip(material.train, options.weights or [1.0] * len(sets), strict=False) for _ in part]
    training, val = usable(sets, charset, longest), usable(material.val, charset, longest)
    val = val.evenly(options.eval_words)
    recogniser.to(device)
    expected = sum(w * n for w, n in zip(weights, np.bincount(training.of, minlength=len(sets)), strict=True))
    steps = options.steps or max(1, round(expected * options.epochs / options.batch))
    precision = choose_precision(options.precision, device)
    pace = Pace(steps, options.eval_every or max(1, steps // 10), device, precision, options.seed)
    run = Run(options.out, _config(options, recogniser, init, pace, training), options.resume)
    for reason, number in training.dropped.items():
        say(f"{number:,} training crops not used: {reason}")
    _describe(options, recogniser, training, val, pace, say)
    workers = WORKERS if options.workers is None else options.workers
    loop = Loop("finetune", recogniser, groups(recogniser, options.encoder_rate, options.rate), pace, run)
    broken: dict[int, str] = {}

    def loss(batch: CropBatch) -> tuple[Tensor, Tensor]:
        targets = charset.encode(batch.labels).to(device)
        value = recogniser.loss(batch.pictures.to(device, non_blocking=True), targets)
        return value, recogniser.decoder.predictions(targets)

    def evaluate() -> Found:
        readings, _ = read_crops(recogniser, val, device, pace.precision, workers, material.tokens)
        result = scored(readings)
        return Found(result.figures(), (result.accuracy_36, result.ned_36), str(result), readings)

    try:
        size = recogniser.config.vision.image_size
        progress = loop.train(
            lambda start: _batches(options, material, training, weights, size, workers, broken, start), loss, evaluate
        )
    finally:
        run.close()
    for reason, number in Counter(broken.values()).items():
        training.dropped[f"broken: {reason}"] = number
        say(f"{number:,} training crops not used: {reason}")
    return FinetuneSummary(
        run=str(options.out),
        crops=len(training),
        val=len(val),
        dropped=dict(training.dropped),
        steps=pace.steps,
        seconds=round(progress.seconds, 3),
        crops_per_second=round(progress.words / progress.seconds, 1),
        waiting=round(progress.waiting / progress.seconds, 4),
        loss=progress.loss,
        best_step=progress.best_step,
        scores=progress.best_scores or {},
    )


def build(options: FinetuneOptions, material: Material) -> tuple[Recogniser, dict[str, Any]]:
    """The recogniser a run begins with, and the configuration of the pre-trained run its decoder is from.

    WrongUse if that run is of another space than the tower, or its decoder has no permutations and some are asked for.
    """
    decoder, init, _ = load_run(options.init)
    shape = decoder.config
    if options.permutations:
        shape = configure(shape.kind, **{**asdict(shape), "permutations": options.permutations})
    vision = material.tower.config if material.tower else _vit(options, shape)
    recogniser = Recogniser(RecogniserConfig(vision, shape, options.queries))
    if material.tower and material.space:
        _check_space(options, init, material.space)
        recogniser.encoder.load_state_dict(material.tower.state_dict())
    if not options.scratch:
        recogniser.decoder.load_state_dict(decoder.state_dict())
    recogniser.encoder.requires_grad_(not options.freeze)
    return recogniser, init


def _vit(options: FinetuneOptions, decoder: DecoderConfig) -> VisionConfig:
    vit = released_vit(decoder.memory_width)
    try:
        return vit.resized(options.image_size) if options.image_size else vit
    except ValueError as error:
        raise WrongUse(f"{error} of the vit: choose a larger --image-size.") from error


def _check_space(options: FinetuneOptions, init: dict[str, Any], space: Space) -> None:
    trained = Fingerprint(**init["fingerprint"])
    if trained.digest != space.digest and not options.other_space:
        raise WrongUse(
            f"{options.init} was pre-trained on space {init['space']}, and the image encoder is of {space.name}: "
            f"features of two encoders never meet. They differ in {'; '.join(trained.differences(space.fingerprint))}."
        )


def _batches(
    options: FinetuneOptions,
    material: Material,
    training: Crops,
    weights: list[float],
    image_size: Pair,
    workers: int,
    broken: dict[int, str],
    start: int,
) -> Generator[CropBatch, None, None]:
    """The run's batches from number `start` on."""
    epochs = (schedule(training, weights, options.batch, options.seed, epoch) for epoch in count())
    numbers: Iterator[Any] = islice(chain.from_iterable(epochs), start, None)
    if material.tokens:
        made = material.tokens.batches(training, numbers, start)
    else:
        made = load(Pictures(training, image_size, options.augment, options.seed), numbers, workers, start)
    for batch in made:
        broken |= batch.broken
        if len(batch):
            yield batch
        elif len(broken) == len(training):
            raise WrongUse(f"none of {len(training):,} training crops is a picture: {next(iter(broken.values()))}.")


def _describe(
    options: FinetuneOptions,
    recogniser: Recogniser,
    training: Crops,
    val: Crops,
    pace: Pace,
    say: Callable[[str], None],
) -> None:
    parts = {"image encoder": recogniser.encoder, "FMU": recogniser.fmu, "decoder": recogniser.decoder}
    sizes = ", ".join(f"{name} {sum(p.numel() for p in part.parameters()) / 1e6:.1f} M" for name, part in parts.items())
    (H, W), (rows, columns) = recogniser.config.vision.image_size, recogniser.config.vision.grid
    say(f"{len(training):,} crops to train on in {len(training.sets)} sets, {len(val):,} to watch")
    say(f"pictures of {H} x {W}, {rows} x {columns} tokens; {sizes}")
    encoder = "frozen, its tokens from the cache" if options.freeze else f"learning rate {options.encoder_rate:.3g}"
    decoder = "from scratch" if options.scratch else f"from {options.init}"
    say(f"image encoder {encoder}; decoder {decoder}, learning rate {options.rate:.3g}")
    say(f"{pace.steps:,} steps of {options.batch}, {pace.device.type}, {pace.precision}, into {options.out}")


def _config(
    options: FinetuneOptions, recogniser: Recogniser, init: dict[str, Any], pace: Pace, training: Crops
) -> dict[str, Any]:
    """config.json: everything that decided the run, resolved."""
    chosen = {**asdict(options), "init": str(options.init), "out": str(options.out)}
    chosen |= {"lr": options.rate, "encoder_lr": options.encoder_rate, "steps": pace.steps}
    return {
        **chosen,
        "device": str(pace.device),
        "precision": pace.precision,
        "crops": dict(Counter(training.sets[n].name for n in training.of)),
        "recogniser": recogniser.config.to_dict(),
        "pretrained": {name: init[name] for name in ("space", "fingerprint", "corpora", "steps", "orp", "zero_memory")},
        "versions": {"dptr": __version__, "torch": str(torch.__version__), "numpy": np.__version__},
    }
