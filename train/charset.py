"""The characters a decoder can write, and the three marks around them, numbered as in PARSeq."""

import string
from collections.abc import Sequence

import torch
from torch import Tensor

CHARACTERS_94 = string.digits + string.ascii_lowercase + string.ascii_uppercase + string.punctuation
EOS = 0


class Charset:
    """Ids: EOS 0, characters 1..n in the order given, BOS n + 1, PAD n + 2. The head predicts EOS and characters."""

    def __init__(self, characters: str = CHARACTERS_94) -> None:
        self.characters = characters
        self.bos = len(characters) + 1
        self.pad = len(characters) + 2
        self.ids = len(characters) + 3
        self.head = len(characters) + 1
        self._number = {c: n for n, c in enumerate(characters, 1)}

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
