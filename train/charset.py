"""The characters a decoder can write, and the three marks around them, numbered as in PARSeq."""

import string
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cache.errors import WrongUse

CHARACTERS_36 = string.digits + string.ascii_lowercase
CHARACTERS_62 = CHARACTERS_36 + string.ascii_uppercase
CHARACTERS_94 = CHARACTERS_62 + string.punctuation
NAMED = {"36": CHARACTERS_36, "62": CHARACTERS_62, "94": CHARACTERS_94}
EOS = 0


def characters(name: str) -> str:
    """The characters of a charset: 36, 62 or 94 by name, or those of a text file, whitespace left out, NFC.

    WrongUse if there is neither, or nothing in the file.
    """
    if name in NAMED:
        return NAMED[name]
    try:
        text = unicodedata.normalize("NFC", Path(name).read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUse(
            f"there is no charset '{name}' (it is neither {', '.join(NAMED)} nor a UTF-8 text file): "
            "name a file that holds the characters."
        ) from error
    found = "".join(dict.fromkeys("".join(text.split())))
    if not found:
        raise WrongUse(f"the charset file {name} holds no characters.")
    return found


class Charset:
    """Ids: EOS 0, characters 1..n in the order given, BOS n + 1, PAD n + 2. The head predicts EOS and characters."""

    def __init__(self, characters: str = CHARACTERS_94) -> None:
        self.characters = characters
        self.bos = len(characters) + 1
        self.pad = len(characters) + 2
        self.ids = len(characters) + 3
        self.head = len(characters) + 1
        self._number = {c: n for n, c in enumerate(characters, 1)}
        self._one_case = characters == characters.lower() and characters != characters.upper()

    def fold(self, label: str) -> str:
        """The label as this charset writes it: in small letters if it has no others."""
        return label.lower() if self._one_case else label

    def holds(self, label: str) -> bool:
        """Whether every character of `label` can be written."""
        return all(c in self._number for c in label)

    def encode(self, labels: Sequence[str]) -> Tensor:
        """(B, L + 2) int64: BOS, characters, EOS, PAD up to the longest of these labels. Labels must be held."""
        longest = max(map(len, labels))
        targets = torch.full((len(labels), longest + 2), self.pad)
        for row, label in zip(targets, labels, strict=True):
            ids = [self.bos, *(self._number[c] for c in label), EOS]
            row[: len(ids)] = torch.tensor(ids)
        return targets

    def decode(self, ids: Tensor) -> list[str]:
        """Text of each row of (B, S) head ids, up to its first EOS."""
        texts = []
        for row in ids.tolist():
            row = row[: row.index(EOS)] if EOS in row else row
            texts.append("".join(self.characters[i - 1] for i in row))
        return texts
