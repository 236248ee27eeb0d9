"""Decoders are plug-ins: each module of this package is one kind, known by its name, and nothing else lists them.

A module has a `Config` and a `Decoder`, which fill in the two classes below. Adding a module adds a decoder.
Shape letters: B batch, M memory rows, D memory width, S length of the output (characters + EOS).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cache.errors import WrongUse
from models.charset import CHARACTERS_94, EOS, Charset
from models.layers import Dropout, KeysValues, initialise, rows_of


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of any decoder. The defaults are the released ones, for a memory of width 512."""

    memory_width: int = 512
    width: int = 512
    depth: int = 6
    heads: int = 8
    dropout: float = 0.1
    max_length: int = 25  # characters
    characters: str = CHARACTERS_94

    @property
    def kind(self) -> str:
        """The name of its module."""
        return type(self).__module__.rpartition(".")[2]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}

    @staticmethod
    def of(fields: Mapping[str, Any]) -> "DecoderConfig":
        """Inverse of `to_dict`. Early runs name no kind: theirs is parseq."""
        rest = dict(fields)
        made: DecoderConfig = _part(rest.pop("kind", "parseq")).Config(**rest)
        return made


class TextDecoder(nn.Module, ABC):
    """Reads text from a memory (B, M, D)."""

    replayable: ClassVar[bool] = True  # whether the loss, given what is `drawn`, never waits for the device
    architecture: ClassVar[str]  # says how to rebuild it without this project
    reading: ClassVar[dict[str, Any]]  # says, at least under "how", how it reads
    layers: Any  # an nn.ModuleList, whose items have no type

    def __init__(
        self, config: DecoderConfig, layer: Callable[[int, int, int, float], nn.Module], embeds: bool = False
    ) -> None:
        """The parts that decoders share: layers, a norm, a head, dropout; with `embeds`, an embedding of ids.

        `layer` makes a layer from (width, memory width, heads, dropout). Weights are drawn in the order of these lines
        and a subclass draws its own after them, so that a seed keeps giving the same weights.
        """
        super().__init__()
        W = config.width
        self.config = config
        self.charset = Charset(config.characters)
        if embeds:
            self.embedding = nn.Embedding(self.charset.ids, W)
        self.layers = nn.ModuleList(
            layer(W, config.memory_width, config.heads, config.dropout) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(W)
        self.head = nn.Linear(W, self.charset.head)
        self.dropout = Dropout(config.dropout)
        self.apply(initialise)

    @abstractmethod
    def loss(self, memory: Tensor, memory_mask: Tensor | None, targets: Tensor) -> Tensor:
        """The mean loss per character, a scalar.

        memory (B, M, D); memory_mask (B, M), True where there is a row (None: everywhere); targets (B, S + 1), as
        `Charset.encode` returns them. A decoder that implements `drawn` takes what it returns as a fourth argument.
        """

    def drawn(self, targets: Tensor) -> Tensor | None:
        """What `loss` would draw from the CPU's generator, on the device of the targets; None: nothing."""
        return None

    def describe(self) -> str:
        """A line for a person: kind, shape, and number of parameters."""
        shape, size = self.config, sum(p.numel() for p in self.parameters()) / 1e6
        return f"{shape.kind}, depth {shape.depth}, width {shape.width}, {shape.heads} heads, {size:.1f} M parameters"

    def predictions(self, targets: Tensor) -> Tensor:
        """The number of predictions that `loss` averages over, a scalar: one for each character and EOS."""
        return (targets[:, 1:] != self.charset.pad).sum()

    def memory_keys_values(self, memory: Tensor) -> list[KeysValues]:
        """Each layer's keys and values of a memory (B, M, D), computed once and used many times."""
        return [layer.cross_attention.keys_values(memory) for layer in self.layers]

    @abstractmethod
    def read(self, memory: Tensor, memory_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """The most probable ids and their probabilities, (B, max_length + 1) each; after the text, EOS and 1.

        A row's reading does not depend on the other rows. ONNX can hold it if no value decides what is computed, or if
        the decoder is a StepDecoder.
        """


class StepDecoder(TextDecoder):
    """Writes one character after another: `step` is repeated until all rows have ended, then `finished` is called.

    ONNX reads with these two, so in them no value decides what is computed, and sizes are taken from `shape`, because
    `len` would become a constant. `left_to_right` does the same here, and lets rows leave the batch as they end.
    """

    @abstractmethod
    def step(
        self,
        number: int | Tensor,
        last: Tensor,
        memory: Sequence[KeysValues],
        memory_mask: Tensor | None,
        past: Sequence[KeysValues | None],
    ) -> tuple[Tensor, Tensor, list[KeysValues]]:
        """Position `number`: ids and their probabilities (B, 1), and `past` with this position.

        last (B, 1): the ids of the position before, at first BOS; memory as `memory_keys_values` gives it; past: each
        layer's keys and values (B, h, number, W / h), or None before the first step.
        """

    def finished(
        self, ids: Tensor, shares: Tensor, memory: Sequence[KeysValues], past: Sequence[KeysValues]
    ) -> tuple[Tensor, Tensor]:
        """The reading, from the steps' ids and probabilities (B, max_length + 1); after the text, EOS and 1."""
        return ids, shares

    def left_to_right(
        self, memory: Sequence[KeysValues], memory_mask: Tensor | None, B: int
    ) -> tuple[Tensor, Tensor, list[tuple[Tensor, list[KeysValues]]]]:
        """Ids and their probabilities (B, max_length + 1), and the rows that ended together with their `past`.

        memory as `memory_keys_values` gives it. Each step computes one position. Rows that have ended leave the batch.
        """
        steps, device = self.config.max_length + 1, self.head.weight.device
        ids = torch.full((B, steps), EOS, device=device)
        shares = torch.ones(B, steps, device=device)
        rows = torch.arange(B, device=device)  # that have not ended
        last = torch.full((B, 1), self.charset.bos, device=device)
        past: Sequence[KeysValues | None] = [None] * len(self.layers)
        ended: list[tuple[Tensor, list[KeysValues]]] = []
        for step in range(steps):
            last, share, seen = self.step(step, last, memory, memory_mask, past)  # (R, 1)
            ids[rows, step], shares[rows, step] = last[:, 0], share[:, 0]
            gone, going = ((last[:, 0] == EOS) == end for end in (True, False))
            if step + 1 == steps or bool(gone.all()):
                ended.append((rows, seen))
                break
            if bool(gone.any()):
                ended.append((rows[gone], rows_of(seen, gone)))
                rows, last = rows[going], last[going]
                memory, seen = rows_of(memory, going), rows_of(seen, going)
                memory_mask = None if memory_mask is None else memory_mask[going]
            past = seen
        return ids, shares, ended


def names() -> list[str]:
    """All kinds of decoders."""
    return sorted(module.name for module in iter_modules(__path__))


def configure(kind: str, **fields: Any) -> DecoderConfig:
    """The configuration of a decoder of this kind. Fields that are None keep their defaults.

    WrongUse if there is no such kind, or it lacks a field.
    """
    config = _part(kind).Config
    given = {name: value for name, value in fields.items() if value is not None}
    for name in given.keys() - config.__dataclass_fields__.keys():
        raise WrongUse(f"the decoder {kind} has no {name.replace('_', ' ')}: leave out --{name.replace('_', '-')}.")
    made: DecoderConfig = config(**given)
    return made


def make(config: DecoderConfig) -> TextDecoder:
    """A new decoder with random weights."""
    made: TextDecoder = _part(config.kind).Decoder(config)
    return made


def ended_at_eos(ids: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Ids and probabilities (B, S), replaced by EOS and 1 after the first EOS of each row."""
    ended = (ids == EOS).cumsum(-1) > 0
    return ids.masked_fill(ended, EOS), shares.masked_fill(F.pad(ended[:, :-1], (1, 0)), 1.0)


def confidence(shares: Tensor) -> Tensor:
    """The confidence (B,) of a reading: the product of the probabilities (B, S) of its characters and its EOS."""
    return shares.prod(-1)


def _part(kind: str) -> Any:
    if kind not in names():
        raise WrongUse(f"there is no decoder '{kind}': choose one of {', '.join(names())}.")
    return import_module(f"{__name__}.{kind}")
