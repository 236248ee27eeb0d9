"""Fine-tunes a recogniser on labelled word images: `dptr finetune --init RUN --train LMDB --val LMDB --out RUN`.

The image encoder, the FMU and the pre-trained decoder are trained together, with the same loss as in pre-training. A
reader whose tower is thinned learns the memories of the whole one beside it.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cache.errors import DptrError
from cache.report import counted
from cache.space import Space
from models.device import choose_device, rates_said, upload
from models.image_encoder import ImageEncoder
from models.new_charset import carried
from models.recogniser import Recogniser, groups
from sources.ahead import ahead
from sources.labelled import Labelled
from sources.pictures import decode
from train.data.crop_batches import WORKERS, CachedTokens, CropBatch, Pictures, load, schedules
from train.data.crops import Crops, usable
from train.data.plan import Plan
from train.earlier import lead, planned
from train.expectation import expectation, none_right, wanted
from train.finetune_options import FinetuneOptions, check
from train.loop import Loop
from train.progress import Found
from train.pseudo_labels import PseudoLabels
from train.ranks import check_shared, join, silent
from train.reading.batched import read_crops
from train.reading.result import scored
from train.recorder import Recorder, settled_precision
from train.run_config import RunConfig, versions
from train.start import build, history, teacher
from train.step import Pace, eval_every


@dataclass(frozen=True)
class FinetuneSummary:
    """The outcome of a fine-tuning run."""

    run: str
    crops: int  # training crops
    val: int
    dropped: dict[str, int]  # training crops not used, by reason
    steps: int
    seconds: float  # training time, without evaluations
    crops_per_second: float
    waiting: float  # fraction of that time spent waiting for a batch
    loss: float
    best_step: int
    scores: dict[str, float]  # of the best checkpoint


@dataclass(frozen=True)
class Material:
    """What a run trains on: word images, a list for each --train, and the image encoder (None: the released ViT)."""

    train: Sequence[Sequence[Labelled]]
    val: Sequence[Labelled]
    space: Space | None = None
    tower: ImageEncoder | None = None
    tokens: CachedTokens | None = None  # of all pictures, if the encoder is frozen
    unlabelled: Sequence[Labelled] = ()  # of which labels are not looked at


def finetune(options: FinetuneOptions, material: Material, say: Callable[[str], None]) -> FinetuneSummary:
    """Train a recogniser and write its run folder.

    Raises WrongUse for options that contradict each other or name something that does not exist, DptrError for unusable
    data, a loss that is not finite, or a failed write; checkpoints already written are kept.
    """
    check(options)
    ranks, device = join(choose_device(options.device))
    if not ranks.first:
        say = silent
    check_shared(options.batch, ranks)
    torch.manual_seed(options.seed)
    recogniser, init = build(options, material.space, material.tower)
    charset, longest = recogniser.charset, recogniser.config.decoder.max_length
    sets = [one for part in material.train for one in part]
    weights = [w for part, w in zip(material.train, options.weight or [1.0] * len(sets), strict=False) for _ in part]
    training, val = (usable(s, charset, longest, blank=options.blank) for s in (sets, material.val))
    val = val.evenly(options.eval_words)
    _check_readable(val, "validation", "--val")
    _check_readable(training, "training", "--train")
    recogniser.to(device)
    whole = teacher(options, device)
    expected = sum(w * n for w, n in zip(weights, np.bincount(training.of, minlength=len(sets)), strict=True))
    steps = options.steps or max(1, round(expected * options.epochs / options.batch))
    precision = ranks.agree(settled_precision(options.precision, options.resume, options.out, device))
    every = eval_every(options.eval_every, steps)
    pace = Pace(steps, every, device, precision, options.seed, options.decay, ranks)
    resolved = {
        "steps": pace.steps,
        "lr": options.rate,
        "encoder_lr": options.encoder_rate,
        "eval_every": pace.eval_every,
        "precision": pace.precision,
        "crops": dict(Counter(training.sets[n].name for n in training.of)),
        "pretrained": history(init),
        "ranks": ranks.size,
    }
    if drawn := {one.name: one.drawn_from for one in sets if one.draw}:
        resolved["drawn"] = drawn
    if material.unlabelled:
        resolved["unlabelled"] = {one.name: len(one) for one in material.unlabelled}
    machine = {"device": str(device), "versions": versions()}
    config = RunConfig(options, recogniser.config, init.space_name, init.fingerprint, resolved, machine)
    run = Recorder(options.out, config, options.resume, ranks)
    for reason, number in training.dropped.items():
        say(f"{number:,} training crops not used: {reason}")
    for name, crops in (("training", training), ("validation", val)):
        if crops.folded:
            say(
                f"{crops.folded:,} {name} labels lose or change characters that are not ASCII, as é becomes e: to keep "
                "them, give a --charset file that has them"
            )
    needed = wanted(init.fingerprint if material.space and not options.other_space else None)
    _describe(options, init, recogniser, training, val, pace, say)
    if not init.reads_pictures:
        say(expectation(pace.steps * options.batch, "--epochs or --steps", needed))
    for line in run.going_on():
        say(line)
    pace = replace(pace, lead=lead(run.earlier, options.batch))
    plan = planned(Plan(options.batch, options.seed, ranks.rank, ranks.size), run.earlier)
    workers = max(1, WORKERS // ranks.here) if options.workers is None else options.workers
    loop = Loop("finetune", recogniser, groups(recogniser, options.encoder_rate, options.rate), pace, run)
    pseudo = PseudoLabels(options, material.unlabelled, recogniser, loop, plan, workers, say)
    broken: dict[int, str] = {}

    def loss(batch: CropBatch) -> tuple[Tensor, Tensor]:
        targets = upload(charset.encode(batch.labels), device)
        pictures = upload(batch.pictures, device)
        value = recogniser.loss(pictures, targets, whole.memory(pictures) if whole else None)
        return value, recogniser.decoder.predictions(targets)

    def evaluate() -> Found:
        readings, _ = read_crops(recogniser, val, device, pace.precision, workers, material.tokens, ranks)
        result = scored(readings)
        return pseudo.told(Found(result.figures(), (result.accuracy_36, result.ned_36), str(result), readings))

    try:
        vision = recogniser.config.vision
        made = Pictures(training, vision.image_size, options.augment, options.seed, vision.turn_tall, ranks)
        progress = loop.train(
            lambda start: _batches(material, training, weights, plan, made, workers, broken, pseudo, start),
            pseudo.with_loss(loss),
            evaluate,
        )
        broken = {n: why for some in ranks.each(broken) for n, why in some.items()}
    finally:
        run.close()
        ranks.leave()
    if progress.best_scores and not progress.best_scores["accuracy_36"]:
        say(none_right(pace.steps * options.batch, "--epochs or --steps", needed))
    training.dropped.update(pseudo.ended())
    for reason, number in Counter(broken.values()).items():
        training.dropped[f"broken: {reason}"] = number
        say(f"{number:,} training crops not used: {reason}")
    return FinetuneSummary(
        run=str(options.out),
        crops=len(training),
        val=len(val),
        dropped=dict(training.dropped),
        steps=progress.step,
        seconds=round(progress.seconds, 3),
        crops_per_second=round(progress.words / progress.seconds, 1),
        waiting=round(progress.waiting / progress.seconds, 4),
        loss=progress.loss,
        best_step=progress.best_step,
        scores=progress.best_scores or {},
    )


def _check_readable(crops: Crops, what: str, option: str) -> None:
    """Raise DptrError if no picture can be read, before the run is made; stops at the first that can."""
    for n in range(len(crops)):
        with suppress(ValueError):
            if not crops.drawing(n):
                decode(crops.picture(n))
            return
    names = ", ".join(one.name for one in crops.sets)
    raise DptrError(f"none of the {len(crops):,} {what} crops of {names} can be read as a picture: check {option}.")


def _batches(
    material: Material,
    training: Crops,
    weights: list[float],
    plan: Plan,
    pictures: Pictures,
    workers: int,
    broken: dict[int, str],
    pseudo: PseudoLabels,
    start: int,
) -> Generator[CropBatch, None, None]:
    """Yield the run's batches from number `start` on; a rank's share of one may have no picture that can be read."""
    numbers = schedules(training, weights, plan, start)
    made: Iterator[CropBatch]
    if material.tokens:
        made = ahead(material.tokens.batches(training, numbers, start))
    else:
        made = load(pictures, numbers, workers, start)
    for batch in pseudo.beside(made):
        broken |= batch.broken
        if len(batch) or plan.ranks > 1:
            yield batch


def _describe(
    options: FinetuneOptions,
    init: RunConfig,
    recogniser: Recogniser,
    training: Crops,
    val: Crops,
    pace: Pace,
    say: Callable[[str], None],
) -> None:
    parts = {"image encoder": recogniser.encoder, "FMU": recogniser.fmu, "decoder": recogniser.decoder}
    if recogniser.guide is not None:
        parts["its guide"] = recogniser.guide
    sizes = ", ".join(f"{name} {sum(p.numel() for p in part.parameters()) / 1e6:.1f} M" for name, part in parts.items())
    (H, W), (rows, columns) = recogniser.config.vision.image_size, recogniser.config.vision.grid
    sets = counted(len(training.sets), "set")
    say(f"{len(training):,} training crops in {sets}, {len(val):,} validation crops")
    say(f"pictures of {H} x {W}, {rows} x {columns} tokens; {sizes}")
    encoder = (
        "frozen, its tokens read from the cache" if options.freeze else f"learning rate {options.encoder_rate:.3g}"
    )
    before = init.decoder.characters
    if recogniser.charset.characters != before and not options.scratch:
        say(f"charset: {carried(before, recogniser.charset.characters)}")
    start = f"decoder {'from scratch' if options.scratch else f'from {options.init}'}"
    if init.reads_pictures:
        start = f"all of it from {options.init}"
        if options.encoder_layers:
            start += f", its tower thinned to {counted(options.encoder_layers, 'layer')} and taught by the whole"
    if recogniser.guide is not None:
        start = f"a new {options.student} decoder, guided in training by that of {options.init}"
    say(f"image encoder {encoder}; {start}, learning rate {options.rate:.3g}")
    say(f"{pace.steps:,} steps of {options.batch} crops, {pace.device.type}, {pace.precision}, into {options.out}")
    if options.precision == "auto":
        say(f"{pace.precision}: this machine multiplies at {rates_said(pace.device)}")
