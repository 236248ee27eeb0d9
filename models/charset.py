"""The characters a decoder can write, and the three special tokens, numbered as in PARSeq."""

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.errors import WrongUse

CHARACTERS_36 = string.digits + string.ascii_lowercase
CHARACTERS_62 = CHARACTERS_36 + string.ascii_uppercase
CHARACTERS_94 = CHARACTERS_62 + string.punctuation
NAMED = {"36": CHARACTERS_36, "62": CHARACTERS_62, "94": CHARACTERS_94}
EOS = 0


def characters(name: str, space: bool = False) -> str:
    """The characters of a charset: 36, 62 or 94 by name, or those in a UTF-8 text file; `space` adds one at the end.

    A file is taken as it is, as OpenOCR and PaddleOCR take their dictionaries: one character a line, numbered in order,
    also if it is a space; nothing is normalised. A file of a single line lists all its characters there. WrongUse if
    `name` is neither, or a line is empty, longer, or repeats a character.
    """
    found = list(NAMED[name]) if name in NAMED else _listed(Path(name))
    if space and " " in found:
        raise WrongUse(f"the charset {name} has the space already, as character {found.index(' ') + 1}: leave it out.")
    return "".join([*found, *" " * space])


def _listed(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUse(
            f"there is no charset '{path}' (it is neither {', '.join(NAMED)} nor a UTF-8 text file): "
            "name a file with the characters."
        ) from error
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    place, found = ("line", lines) if len(lines) > 1 else ("character", list(lines[0]))
    if not found:
        raise WrongUse(f"the charset file {path} holds no characters.")
    first: dict[str, int] = {}
    for number, character in enumerate(found, 1):
        if len(character) != 1:
            raise WrongUse(
                f"{path} line {number} has {len(character)} characters: write one a line, or all on a single line."
            )
        if first.setdefault(character, number) != number:
            code = f"U+{ord(character):04X}"
            raise WrongUse(
                f"{path} {place} {number} repeats the character of {place} {first[character]} ({code}): remove one."
            )
    return found


class Charset:
    """Ids: EOS 0, characters 1 to n in the order given, BOS n + 1, PAD n + 2. Heads predict EOS and characters."""

    def __init__(self, characters: str = CHARACTERS_94) -> None:
        self.characters = characters
        self.bos = len(characters) + 1
        self.pad = len(characters) + 2
        self.ids = len(characters) + 3
        self.head = len(characters) + 1
        self._number = {c: n for n, c in enumerate(characters, 1)}
        self._table = np.zeros(0x110000, np.min_scalar_type(self.pad))  # by code point; unused pages take no memory
        self._table[[ord(c) for c in self._number]] = list(self._number.values())
        self._one_case = characters == characters.lower() and characters != characters.upper()

    def fold(self, label: str) -> str:
        """The label as this charset writes it: in lower case if it has no upper case."""
        return label.lower() if self._one_case else label

    def holds(self, label: str) -> bool:
        """Whether the charset has every character of `label`."""
        return all(c in self._number for c in label)

    def encode(self, labels: Sequence[str]) -> Tensor:
        """(B, L + 2) int64: BOS, characters, EOS, and PAD up to the longest label. The charset must hold all labels."""
        return torch.from_numpy(self.rows(labels, max(map(len, labels))).astype(np.int64))

    def rows(self, labels: Sequence[str], longest: int) -> NDArray[Any]:
        """The same padded for `longest` characters: (B, longest + 2) of the smallest integer type that fits the ids."""
        lengths = np.fromiter(map(len, labels), np.int64, len(labels))[:, None]
        rows = np.full((len(labels), longest + 2), self.pad, self._table.dtype)
        place = np.arange(longest + 2)
        rows[:, 0] = self.bos
        rows[(place > 0) & (place <= lengths)] = self._table[np.frombuffer("".join(labels).encode("utf-32-le"), "<u4")]
        rows[place == lengths + 1] = EOS
        return rows

    def decode(self, ids: Tensor | NDArray[Any]) -> list[str]:
        """The text of each row of ids (B, S), up to its first EOS."""
        texts = []
        for row in ids.tolist():
            row = row[: row.index(EOS)] if EOS in row else row
            texts.append("".join(self.characters[i - 1] for i in row))
        return texts
