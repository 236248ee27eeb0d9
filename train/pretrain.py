"""Pre-trains a decoder on cached text memories: `dptr pretrain --corpus NAME --bank NAME --out RUN`.

Each step takes a batch of words, perturbs their memories (train/perturb), computes the decoder's loss and updates the
weights with AdamW. CLIP is not involved. At intervals, held-out words are read from memories without random changes.
"""

from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cache.errors import DptrError, WrongUse
from cache.remote import absolute
from cache.space import space_with
from models.charset import Charset, characters
from models.decoders import DecoderConfig, configure, make
from models.device import choose_device, rates_said
from sources.ahead import ahead
from train.data.plan import Plan
from train.data.readers import choose_reader, open_reader
from train.data.word_batches import MemoryLoader, TextBatch, batches
from train.data.words import read_words, split
from train.earlier import lead, planned
from train.expectation import expectation, none_right, wanted
from train.loop import Loop
from train.options import released_rate
from train.perturb import perturbation as perturbation_asked
from train.perturb.photographs import HowToRead
from train.pretrain_options import PretrainOptions, check
from train.progress import Found
from train.ranks import Ranks, check_shared, join, silent
from train.reading.batched import read_memories
from train.reading.result import scored
from train.recorder import Recorder, settled_precision, settled_reader
from train.run_config import RunConfig, versions
from train.step import Pace, eval_every


@dataclass(frozen=True)
class PretrainSummary:
    """The outcome of a pre-training run."""

    run: str
    words: int  # training words
    held_out: int
    steps: int
    seconds: float  # training time, without evaluations
    words_per_second: float
    loss: float
    best_step: int
    scores: dict[str, float]  # of the best checkpoint, on held-out words


def pretrain(options: PretrainOptions, say: Callable[[str], None]) -> PretrainSummary:
    """Train a decoder and write its run folder.

    Raises WrongUse for options that contradict each other or name something that does not exist, DptrError for an
    unusable cache, a loss that is not finite, or a failed write; checkpoints already written are kept.
    """
    check(options)
    perturbation = perturbation_asked(options.perturb, options.bank)
    names = ("depth", "dropout", "max_length", "permutations")
    kind = configure(options.decoder, **{name: getattr(options, name) for name in names})
    ranks, device = join(choose_device(options.device))
    if not ranks.first:
        say = silent
    check_shared(options.batch, ranks)
    space = space_with(options.cache, options.space, options.corpus, [options.bank] if options.bank else [], say)
    charset = Charset(characters(options.charset, options.space_char))
    words, dropped = read_words(space, options.corpus, charset, kind.max_length)
    training, held_out = split(words, options.held_out)
    if not len(training) or not len(held_out):
        raise DptrError(
            f"of {len(words):,} words, {len(held_out):,} are held out and {len(training):,} are left to train on, but "
            "there must be some of both: use more words, or change --held-out."
        )
    loader = MemoryLoader(space, device, options.zero_memory)
    shape, pace = resolve(options, replace(kind, characters=charset.characters), loader, ranks, len(training))
    torch.manual_seed(options.seed)
    decoder = make(shape).to(device)
    if options.execution != "eager" and (device.type == "cpu" or ranks.size > 1 or not decoder.replayable):
        raise WrongUse(
            f"--execution {options.execution} needs a GPU, a single rank, and a decoder other than ctc: leave it out."
        )
    bank_reader = settled_reader(options.bank_reader, options.out, "bank_reader")
    perturbation.prepare_from(space, loader, training, HowToRead(bank_reader, (options.seed, ranks.rank)))
    photographs = perturbation.source
    if options.execution != "eager" and photographs and not photographs.replayable:
        raise WrongUse(
            f"--execution {options.execution} needs photographs in the GPU's memory: leave it out, or use "
            "--bank-reader resident or streamed."
        )
    asked = settled_reader(options.reader, options.out)
    size = loader.reader.nbytes(np.unique(training.memories))
    chosen = choose_reader(asked, size, device, loader.reader.remote)
    name, why = ranks.agree(chosen)  # for all: the order of words follows from it
    say(f"reader {name}: {why}")
    reader = open_reader(name, loader.reader, training, device)
    rate = options.lr or released_rate(options.batch)
    resolved = {
        "steps": pace.steps,
        "lr": rate,
        "eval_every": pace.eval_every,
        "precision": pace.precision,
        "training_words": len(training),
        "held_out_words": len(held_out),
        "perturb": perturbation.to_dict(),
        "blocks_in_order": name == "streamed",
        "ranks": ranks.size,
    }
    machine = {
        "device": str(device),
        "reader": name,
        "reader_why": why,
        "bank_reader": photographs.name if photographs else bank_reader,
        "versions": versions(),
    }
    options = replace(options, cache=absolute(options.cache))
    config = RunConfig(options, shape, space.name, space.fingerprint, resolved, machine)
    run = Recorder(options.out, config, options.resume, ranks)
    run.keep(perturbation.kept())
    for reason, number in dropped.items():
        say(f"{number:,} labels not used: {reason}")
    say(f"space {space.name}: {len(training):,} words to train on, {len(held_out):,} held out")
    say(f"decoder: {decoder.describe()}")
    say(perturbation.describe())
    say(
        f"{pace.steps:,} steps of {options.batch} words ({pace.steps * options.batch / len(training):.1f} epochs), "
        f"learning rate {rate:.3g}, {device.type}, {pace.precision}, into {options.out}"
    )
    if options.precision == "auto":
        say(f"{pace.precision}: this machine multiplies at {rates_said(device)}")
    needed = wanted(space.fingerprint)
    say(expectation(pace.steps * options.batch, "--epochs or --steps", needed))
    if ranks.size > 1:
        say(f"{ranks.size} ranks, which share the {options.batch} words of each step")
    for line in run.going_on():
        say(line)
    pace = replace(pace, lead=lead(run.earlier, options.batch))
    plan = planned(Plan(options.batch, options.seed, ranks.rank, ranks.size), run.earlier)
    if options.execution == "compiled":
        for layer in decoder.layers:
            layer.compile(dynamic=True)

    def drawn(batch: TextBatch) -> TextBatch:
        return replace(batch, drawn=decoder.drawn(batch.targets))

    parameters = [{"params": list(decoder.parameters()), "peak": rate}]
    loop = Loop("pretrain", decoder, parameters, pace, run, None if options.execution == "eager" else drawn)
    watched = held_out.take(range(min(len(held_out), options.eval_words)))

    def loss(batch: TextBatch) -> tuple[Tensor, Tensor]:
        memory, mask = perturbation(batch.memory, batch.mask, numbers=batch.numbers)
        more = () if batch.drawn is None else (batch.drawn,)
        return decoder.loss(memory, mask, batch.targets, *more), decoder.predictions(batch.targets)

    def evaluate() -> Found:
        readings = read_memories(decoder, loader, watched, pace.precision, perturbation, ranks)
        result = scored(readings)
        return Found(result.figures(), (result.ignoring_case, result.ned), str(result), readings)

    def coming(start: int) -> Generator[TextBatch, None, None]:
        ready = ahead(batches(loader, reader, plan, start))
        with closing(ready) as found, closing(photographs) if photographs else nullcontext():
            for batch in found:
                if photographs:
                    photographs.advance(batch.number)
                yield batch

    try:
        progress = loop.train(coming, loss, evaluate)
    finally:
        run.close()
        ranks.leave()
    if progress.best_scores and not progress.best_scores["ignoring_case"]:
        say(none_right(pace.steps * options.batch, "--epochs or --steps", needed))
    return PretrainSummary(
        run=str(options.out),
        words=len(training),
        held_out=len(held_out),
        steps=progress.step,
        seconds=round(progress.seconds, 3),
        words_per_second=round(progress.words / progress.seconds, 1),
        loss=progress.loss,
        best_step=progress.best_step,
        scores=progress.best_scores or {},
    )


def resolve(
    options: PretrainOptions, kind: DecoderConfig, loader: MemoryLoader, ranks: Ranks, words: int
) -> tuple[DecoderConfig, Pace]:
    """Fill in the options that were left open. Raises WrongUse if the width is not a multiple of the heads."""
    width = options.width or loader.width
    heads = options.heads or max(1, width // 64)
    if width % heads:
        raise WrongUse(f"a width of {width} cannot be split into {heads} heads: choose --heads that divides it.")
    steps = options.steps or max(1, round(-(-words // options.batch) * options.epochs))
    every = eval_every(options.eval_every, steps)
    device = loader.device
    precision = ranks.agree(settled_precision(options.precision, options.resume, options.out, device))
    pace = Pace(steps, every, loader.device, precision, options.seed, options.ema, ranks)
    return replace(kind, memory_width=loader.width, width=width, heads=heads), pace
