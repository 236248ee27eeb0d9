"""What a person may choose of a pre-training run, and how the rest follows from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cache.errors import WrongUse
from models.device import choose_precision
from train.data.readers import READERS
from train.loop import Pace


@dataclass(frozen=True)
class PretrainOptions:
    """Options of `dptr pretrain`. None means that the value follows from others, as `resolve` does it."""

    cache: Path
    corpora: list[str]
    out: Path
    bank: str | None = None  # none: no perturbation
    space: str | None = None  # the cache's only one
    charset: str = "94"  # a name, or a file
    decoder: str = "parseq"  # a module of models.decoders
    depth: int = 6
    width: int | None = None  # that of the memory
    heads: int | None = None  # one for each 64 of width
    dropout: float = 0.1
    permutations: int | None = None  # of parseq
    orp: float | None = None  # λ; 0.1 with a bank and no relative strength
    orp_relative: float | None = None  # λ such that noise rows have this share of memory rows' norm
    orp_positions: str = "shared"  # by the batch, or "sample": drawn for each word
    zero_memory: bool = False  # a control: nothing to read, so the decoder becomes a language model
    batch: int = 384
    epochs: float = 20
    steps: int | None = None  # those of the epochs
    lr: float | None = None  # 7e-4 * sqrt(2) * batch / 256
    held_out: float = 0.05  # share of words kept from training
    eval_every: int | None = None  # a tenth of the steps
    eval_words: int = 1000
    ema: float = 0.0  # decay of the average of the weights that is evaluated and kept; 0: the weights themselves
    seed: int = 0
    resume: str = "auto"  # continue what is in `out`; "never"; or a run or checkpoint to go on from
    reader: str = "auto"  # by the size of the states: resident, mapped or streamed
    device: str = "auto"
    precision: str = "auto"

    @property
    def strength(self) -> float:
        """λ as given."""
        return 0.1 if self.orp is None else self.orp


@dataclass(frozen=True)
class Resolved:
    """What follows from the options, the device, the memory and the number of words."""

    width: int
    heads: int
    steps: int
    lr: float
    eval_every: int
    device: torch.device
    precision: str

    @property
    def pace(self) -> Pace:
        return Pace(self.steps, self.eval_every, self.device, self.precision)


def resolve(options: PretrainOptions, device: torch.device, memory_width: int, words: int) -> Resolved:
    """Fill in what was left open. WrongUse where it does not fit together."""
    width = options.width or memory_width
    heads = options.heads or max(1, width // 64)
    if width % heads:
        raise WrongUse(f"a width of {width} cannot be shared by {heads} heads: choose --heads that divide it.")
    steps = options.steps or max(1, round(math.ceil(words / options.batch) * options.epochs))
    return Resolved(
        width=width,
        heads=heads,
        steps=steps,
        lr=options.lr or released_rate(options.batch),
        eval_every=options.eval_every or max(1, steps // 10),
        device=device,
        precision=choose_precision(options.precision, device),
    )


def released_rate(batch: int) -> float:
    """Peak learning rate of the released code, whose batches had 384 words, for another batch."""
    return 7e-4 * math.sqrt(2) * batch / 256


def check_counts(options: Any, given: Sequence[str], may_be_open: Sequence[str]) -> None:
    """WrongUse for an option that is not more than 0, or for an odd number of permutations."""
    for name in (*given, *may_be_open):
        value = getattr(options, name)
        if (value is not None or name in given) and value <= 0:
            raise WrongUse(f"--{name.replace('_', '-')} must be more than 0, not {value}.")
    if options.permutations not in (None, 1) and options.permutations % 2:
        raise WrongUse(f"--permutations is 1, or even because they come in mirrored pairs, not {options.permutations}.")


def check(options: PretrainOptions) -> None:
    """WrongUse for options that are out of range or contradict each other."""
    if options.orp is not None and options.orp_relative is not None:
        raise WrongUse("--orp is λ itself and --orp-relative a share of the memory's norm: give one of them.")
    if options.bank is None and (options.orp or options.orp_relative):
        raise WrongUse("a perturbation needs photographs: name a --bank, made with dptr embed-images.")
    if options.orp_positions not in ("shared", "sample"):
        raise WrongUse(f"--orp-positions is 'shared' or 'sample', not '{options.orp_positions}'.")
    if options.reader not in READERS:
        raise WrongUse(f"--reader is one of {', '.join(READERS)}, not '{options.reader}'.")
    given = ("depth", "batch", "epochs", "eval_words")
    check_counts(options, given, ("width", "heads", "permutations", "steps", "lr", "eval_every"))
    if not 0 < options.held_out < 1:
        raise WrongUse(f"--held-out is a share between 0 and 1, not {options.held_out}.")
    if not 0 <= options.ema < 1:
        raise WrongUse(f"--ema is a decay from 0 to below 1, not {options.ema}.")
    if not 0 <= options.dropout < 1:
        raise WrongUse(f"--dropout is a share from 0 to below 1, not {options.dropout}.")
