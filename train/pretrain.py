"""Pre-trains a decoder on cached text memories: `dptr pretrain --corpus NAME --bank NAME --out RUN`.

Each step: a batch of words and their memories, memories perturbed with photograph tokens (ORP), the decoder's loss,
AdamW. CLIP takes no part. At intervals held-out words are read from unperturbed memories.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cache import __version__
from cache.errors import DptrError, WrongUse
from cache.space import Space, open_space
from models.charset import Charset, characters
from models.decoders import DecoderConfig, configure, make
from models.device import choose_device
from sources.ahead import ahead
from train.data.plan import Plan
from train.data.readers import choose_reader, open_reader
from train.data.word_batches import MemoryLoader, TextBatch, _batches
from train.data.words import Words, read_words, split
from train.loop import Found, Loop
from train.perturbation import Perturbation, mean_row_norm
from train.pretrain_options import PretrainOptions, Resolved, check, resolve
from train.ranks import join
from train.reading.batched import read_memories
from train.reading.result import scored
from train.recorder import Run, run_reader


@dataclass(frozen=True)
class PretrainSummary:
    """How a run ended."""

    run: str
    words: int  # to train on
    held_out: int
    steps: int
    seconds: float  # of training, evaluations left out
    words_per_second: float
    loss: float
    best_step: int
    scores: dict[str, float]  # of the best checkpoint, on held-out words


def pretrain(options: PretrainOptions, say: Callable[[str], None]) -> PretrainSummary:
    """Train a decoder and write its run folder.

    Raises WrongUse for options that contradict each other or name what is not there, DptrError for a cache that cannot
    be used, a loss that is not finite, or a write that fails; checkpoints written before stay.
    """
    check(options)
    shape = configure(options.decoder, depth=options.depth, dropout=options.dropout, permutations=options.permutations)
    ranks, device = join(choose_device(options.device))
    if not ranks.first:
        say = _silent
    if options.batch % ranks.size:
        raise WrongUse(
            f"a --batch of {options.batch} cannot be shared by {ranks.size} ranks: choose a multiple of them."
        )
    space = open_space(options.cache, options.space)
    charset = Charset(characters(options.charset))
    words, dropped = read_words(space, options.corpora, charset, shape.max_length)
    training, held_out = split(words, options.held_out)
    if not len(training) or not len(held_out):
        raise DptrError(
            f"of {len(words):,} words {len(held_out):,} are held out and {len(training):,} left to train on: "
            "neither may be none, so give more words or another --held-out."
        )
    loader = MemoryLoader(space, device, options.zero_memory)
    chosen = resolve(options, loader.device, loader.width, len(training))
    torch.manual_seed(options.seed)
    shape = replace(
        shape,
        memory_width=loader.width,
        width=chosen.width,
        heads=chosen.heads,
        characters=charset.characters,
    )
    decoder = make(shape).to(chosen.device)
    perturbation, orp = _perturbation(options, space, loader, training)
    asked = options.reader if options.reader != "auto" else run_reader(options.out) or "auto"
    name, why = choose_reader(asked, loader.reader.nbytes(np.unique(training.memories)), loader.device)
    say(f"memories {name}: {why}")
    reader = open_reader(name, loader.reader, training, loader.device)
    config = _config(options, chosen, space, shape, orp, (len(training), len(held_out)))
    config |= {"reader": name, "reader_why": why, "blocks_in_order": name == "streamed", "ranks": ranks.size}
    run = Run(options.out, config, options.resume, ranks)
    for reason, number in dropped.items():
        say(f"{number:,} labels not used: {reason}")
    say(f"space {space.name}: {len(training):,} words to train on, {len(held_out):,} held out")
    parameters = sum(p.numel() for p in decoder.parameters())
    say(
        f"decoder: {shape.kind}, depth {shape.depth}, width {shape.width}, {shape.heads} heads, "
        f"{parameters / 1e6:.1f} M parameters"
    )
    say(_describe(orp))
    say(
        f"{chosen.steps:,} steps of {options.batch} words ({chosen.steps * options.batch / len(training):.1f} epochs), "
        f"learning rate {chosen.lr:.3g}, {chosen.device.type}, {chosen.precision}, into {options.out}"
    )
    if ranks.size > 1:
        say(f"{ranks.size} ranks, each with {options.batch // ranks.size} words of a step")
    if run.state:
        say(f"going on from step {run.state['step']:,}")
    groups = [{"params": list(decoder.parameters()), "peak": chosen.lr}]
    plan = Plan(options.batch // ranks.size, options.seed, ranks.rank, ranks.size)
    loop = Loop("pretrain", decoder, groups, replace(chosen.pace, seed=options.seed, ema=options.ema, ranks=ranks), run)
    watched = held_out.take(range(min(len(held_out), options.eval_words)))

    def loss(batch: TextBatch) -> tuple[Tensor, Tensor]:
        memory = perturbation(batch.memory) if perturbation else batch.memory
        return decoder.loss(memory, batch.mask, batch.targets), decoder.predictions(batch.targets)

    def evaluate() -> Found:
        readings = read_memories(decoder, loader, watched, chosen.precision)
        result = scored(readings)
        return Found(result.figures(), (result.ignoring_case, result.ned), str(result), readings)

    try:
        progress = loop.train(lambda start: ahead(_batches(loader, reader, plan, len(training), start)), loss, evaluate)
    finally:
        run.close()
        ranks.leave()
    return PretrainSummary(
        run=str(options.out),
        words=len(training),
        held_out=len(held_out),
        steps=chosen.steps,
        seconds=round(progress.seconds, 3),
        words_per_second=round(progress.words / progress.seconds, 1),
        loss=progress.loss,
        best_step=progress.best_step,
        scores=progress.best_scores or {},
    )


def _silent(text: str) -> None:
    pass


def _perturbation(
    options: PretrainOptions, space: Space, loader: MemoryLoader, words: Words
) -> tuple[Perturbation | None, dict[str, Any]]:
    """The perturbation and what the run's configuration says of it: λ as such and as a share of the norm."""
    if options.bank is None:
        return None, {}
    features = torch.from_numpy(space.existing_bank(options.bank).features())
    N, T, E = features.shape
    if loader.width != E:
        raise DptrError(
            f"bank '{options.bank}' has {E} values a token and the memories {loader.width}: this encoder's image and "
            "text features cannot be added, so pre-train without --bank."
        )
    sample = words.take(range(0, len(words), max(1, len(words) // 1000)))
    memory, mask = loader.load(sample)
    memory_norm = mean_row_norm(memory if mask is None else memory[mask])
    bank_norm = mean_row_norm(features[:: max(1, N // 500)])
    share = options.orp_relative
    strength = options.strength if share is None else share * memory_norm / bank_norm
    orp = {
        "bank": options.bank,
        "photographs": N,
        "tokens": T,
        "lambda": strength,
        "relative": strength * bank_norm / memory_norm,
        "memory_norm": memory_norm,
        "bank_norm": bank_norm,
        "positions": options.orp_positions,
    }
    shared = options.orp_positions == "shared"
    return Perturbation(features.to(loader.device), strength, shared=shared), orp


def _describe(orp: dict[str, Any]) -> str:
    if not orp:
        return "no perturbation (no --bank)"
    return (
        f"perturbation: {orp['photographs']:,} photographs of {orp['tokens']} tokens, λ = {orp['lambda']:.4g}, which "
        f"moves rows by {orp['relative']:.1%} (mean norms: memory {orp['memory_norm']:.3g}, photographs "
        f"{orp['bank_norm']:.3g}), positions {'shared by the batch' if orp['positions'] == 'shared' else 'a sample'}"
    )


def _config(
    options: PretrainOptions,
    chosen: Resolved,
    space: Space,
    shape: DecoderConfig,
    orp: dict[str, Any],
    words: tuple[int, int],
) -> dict[str, Any]:
    """config.json: everything that decided the run, resolved."""
    resolved = {**asdict(options), **asdict(chosen)}
    resolved |= {"cache": str(options.cache.absolute()), "out": str(options.out), "device": str(chosen.device)}
    return {
        **resolved,
        "space": space.name,
        "fingerprint": asdict(space.fingerprint),
        "training_words": words[0],
        "held_out_words": words[1],
        "decoder": shape.to_dict(),
        "orp": orp,
        "versions": {"dptr": __version__, "torch": str(torch.__version__), "numpy": np.__version__},
    }
