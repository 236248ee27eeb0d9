"""The words of a corpus: their ids, their memories, and which of them are held out.

Shape letters: S ids of a label.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.errors import DptrError
from cache.report import counts
from cache.space import Space
from models.charset import Charset
from sources.cleaning import hash_share

PIECE = 1 << 16  # words whose labels are in memory as strings at one time


@dataclass(frozen=True)
class Words:
    """Labels as the charset's ids, and the numbers of their memories: 35 bytes per word of up to 25 characters."""

    ids: NDArray[Any]  # (n, S): BOS, characters, EOS, PAD
    memories: NDArray[np.int64]  # (n,)
    charset: Charset

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        """The labels. A batch can be kept for its labels this way, at the cost of only their ids."""
        return iter(self.labels)

    @property
    def labels(self) -> list[str]:
        """The labels as strings, decoded on each call."""
        return self.charset.decode(self.ids[:, 1:])

    @cached_property
    def lengths(self) -> NDArray[np.uint8]:
        """Characters of each label, (n,)."""
        return (self.ids.argmin(1) - 1).astype(np.uint8)  # EOS is 0

    def targets(self) -> Tensor:
        """(n, L + 2) int64, as `Charset.encode` gives them: padded to the longest of these labels."""
        return torch.from_numpy(self.ids[:, : int(self.lengths.max()) + 2].astype(np.int64))

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> "Words":
        chosen = np.asarray(indices, np.int64)
        return Words(self.ids[chosen], self.memories[chosen], self.charset)


def read_words(space: Space, corpora: Sequence[str], charset: Charset, max_length: int) -> tuple[Words, Counter[str]]:
    """All usable labels of some corpora, as the charset writes them, and counts of the unusable ones by reason.

    A label comes once for each of its memories; it can have two if the charset has only one case.

    Raises WrongUse for a corpus that does not exist, DptrError if a memory is missing or no label is usable.
    """
    ids, numbers = [], []
    dropped: Counter[str] = Counter()
    for name in corpora:
        corpus = space.existing_corpus(name)
        memories, start = space.memory_numbers(corpus), 0
        for labels in corpus.label_shards():
            kept, places = [], []
            for place, label in enumerate(map(charset.fold, labels), start):
                if len(label) > max_length:
                    dropped[f"longer than {max_length} characters"] += 1
                elif not charset.holds(label):
                    dropped["with characters outside the charset"] += 1
                else:
                    kept.append(label)
                    places.append(place)
            ids.append(charset.rows(kept, max_length))
            numbers.append(memories[places])
            start += len(labels)
    words = Words(np.concatenate(ids), np.concatenate(numbers), charset)
    if not len(words):
        raise DptrError(f"corpus {', '.join(corpora)} holds no usable label: {counts(dropped)}.")
    both = np.concatenate([words.ids.view(np.uint8), words.memories[:, None].view(np.uint8)], 1)
    first = np.unique(both.view(f"V{both.shape[1]}"), return_index=True)[
        1
    ]  # the first of each pair of label and memory
    return words.take(np.sort(first)), dropped


def split(words: Words, share: float) -> tuple[Words, Words]:
    """(training words, held-out words); the latter are ordered by hash, so that the first n are a fair sample."""
    parts = (words.take(np.arange(n, min(n + PIECE, len(words)))) for n in range(0, len(words), PIECE))
    places = np.fromiter((hash_share(label) for part in parts for label in part.labels), np.float64, len(words))
    order = np.argsort(places, kind="stable")
    return words.take(np.flatnonzero(places >= share)), words.take(order[: int((places < share).sum())])
