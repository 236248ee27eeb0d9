"""What every kind of perturbation is: a part of an expression, and the expression, which applies its parts in turn."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from cache.space import Space
from train.data.word_batches import MemoryLoader
from train.data.words import Words
from train.perturb.grammar import Amount
from train.perturb.material import Material, material_of
from train.perturb.photographs import READ, HowToRead, Resident

Moved = tuple[Tensor, Tensor | None]  # memory (B, M, D) and mask (B, M), True where there is a row; None: everywhere


@dataclass
class Part:
    """One kind of perturbation.

    A subclass is a dataclass whose fields are what the kind takes. Each is an `Amount` (a number or a percentage), a
    `float` (10% is 0.1), an `int` (a whole number) or a Literal of words. Its `__post_init__` raises ValueError for a
    value that is out of range.
    """

    name: ClassVar[str]
    needs_bank: ClassVar[bool] = False
    needs_numbers: ClassVar[bool] = False  # called with one more argument: the numbers (B,) of the memories
    particular: ClassVar[bool] = False  # draws photographs for what they show, so needs all of them at any time

    def prepare(self, material: Material) -> None:
        """Take what this needs from the cache; called once, before anything else. Default: nothing."""

    def __call__(self, memory: Tensor, mask: Tensor | None, generator: torch.Generator | None = None) -> Moved:
        """A batch in training: memory (B, M, D) and its mask (B, M), True where there is a row, or None: everywhere.

        Returns both, in the same dtypes; M may change, but must follow from the shapes alone. Without a generator,
        draw from torch's own on the memory's device, which is seeded before each step. Neither wait for the device nor
        draw on the CPU, because a GPU may replay this (train/replay.py). What stands in padding does not matter.
        """
        raise NotImplementedError

    @property
    def source(self) -> Resident | None:
        """The photographs that this draws from, once prepared. Default: none."""
        return None

    def evaluated(self, memory: Tensor, mask: Tensor | None) -> Moved:
        """The same in evaluation, where nothing is random. Default: unchanged."""
        return memory, mask

    def inference(self, tokens: Tensor) -> Tensor:
        """An image tower's tokens (B, T, D) as the decoder should get them without fine-tuning. Default: unchanged."""
        return tokens

    def kept(self) -> dict[str, Tensor]:
        """What `evaluated` and `inference` need, which the run keeps. Default: nothing."""
        return {}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Inverse of `kept`, in place of `prepare`."""

    def describe(self) -> str:
        """What it does to a memory, for a person."""
        return str(self)

    def to_dict(self) -> dict[str, Any]:
        """For config.json: what it was given, and what came of it."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: str(value) if isinstance(value, Amount) else value for name, value in given.items()}

    def __str__(self) -> str:
        """As in an expression."""
        said = []
        for n, field in enumerate(fields(self)):
            value = getattr(self, field.name)
            shown = str(Amount(value) if isinstance(value, float) else value)
            if field.default is MISSING or value != field.default:
                said.append(shown if field.default is MISSING or n == 0 else f"{field.name}={shown}")
        return self.name + (f"({', '.join(said)})" if said else "")


class Perturbation:
    """Parts, applied one after another; without any, memories stay as the encoder gave them."""

    def __init__(self, parts: Sequence[Part] = (), bank: str | None = None) -> None:
        """`bank` is the name of the one that parts with `needs_bank` use."""
        self.parts, self._bank, self._bases = list(parts), bank, ""

    def prepare_from(self, space: Space, loader: MemoryLoader, words: Words, how: HowToRead = READ) -> None:
        """Prepare for a run on these words, with the bank read as `how` says. Raises as `material_of`."""
        bank = self._bank if any(part.needs_bank for part in self.parts) else None
        how = replace(how, particular=how.particular or any(part.particular for part in self.parts))
        if self.parts:
            self.prepare(material_of(space, loader, words, bank, how))

    def prepare(self, material: Material) -> None:
        """Prepare each part."""
        for part in self.parts:
            part.prepare(material)
        if material.bank and material.layout != "shared":
            self._bases = f"; layout {material.layout} does not project rows as image tokens are: two bases are mixed"

    def __call__(
        self,
        memory: Tensor,
        mask: Tensor | None,
        generator: torch.Generator | None = None,
        numbers: Tensor | None = None,
    ) -> Moved:
        """As `Part`. `numbers` (B,) int64: those of the memories, on their device, for parts with `needs_numbers`."""
        for part in self.parts:
            more = (numbers,) if part.needs_numbers else ()
            memory, mask = part(memory, mask, generator, *more)
        return memory, mask

    @property
    def source(self) -> Resident | None:
        """The photographs that its parts share, if any draws from them. Training advances and closes it."""
        return next((part.source for part in self.parts if part.source), None)

    def evaluated(self, memory: Tensor, mask: Tensor | None) -> Moved:
        """As `Part`."""
        for part in self.parts:
            memory, mask = part.evaluated(memory, mask)
        return memory, mask

    def inference(self, tokens: Tensor) -> Tensor:
        """As `Part`."""
        for part in self.parts:
            tokens = part.inference(tokens)
        return tokens

    def kept(self) -> dict[str, Tensor]:
        """As `Part`; names begin with the number of the part."""
        return {f"{n}.{name}": t for n, part in enumerate(self.parts) for name, t in part.kept().items()}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """As `Part`."""
        for n, part in enumerate(self.parts):
            part.restore({name.removeprefix(f"{n}."): t for name, t in kept.items() if name.startswith(f"{n}.")})

    def describe(self) -> str:
        """One line to print."""
        if not self.parts:
            return "no perturbation (no --bank or --perturb)"
        return f"perturbation {self}: {'; then '.join(part.describe() for part in self.parts)}{self._bases}"

    def to_dict(self) -> dict[str, Any]:
        """For config.json: each part under its name; of several of one kind, the second is `orp 2`."""
        seen: Counter[str] = Counter()
        found = {}
        for part in self.parts:
            seen[part.name] += 1
            found[part.name if seen[part.name] == 1 else f"{part.name} {seen[part.name]}"] = part.to_dict()
        return found

    def __str__(self) -> str:
        """The expression."""
        return " + ".join(map(str, self.parts)) or "none"
