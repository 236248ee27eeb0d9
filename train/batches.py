"""From the cache to batches: which words train and which are held out, their order, and their memories on the device.

Shape letters: B batch, M memory rows, D width, P rows of the common prefix.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.errors import DptrError
from cache.memories import MemoryReader
from cache.space import Space
from train.charset import Charset

WINDOW = 64  # batches whose words are sorted by length among themselves, so that a batch needs little padding


@dataclass(frozen=True)
class Words:
    """Labels and the numbers of their memories."""

    labels: list[str]
    memories: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> "Words":
        return Words([self.labels[i] for i in indices], self.memories[np.asarray(indices, np.int64)])


def read_words(space: Space, corpora: Sequence[str], charset: Charset, max_length: int) -> tuple[Words, Counter[str]]:
    """All usable labels of some corpora, as the charset writes them, and the count of those not usable, by reason.

    Each label comes once for each of its memories, of which it can have two if the charset has one case.

    Raises WrongUse for a corpus that does not exist, DptrError if a memory is missing or no label is usable.
    """
    pairs: dict[tuple[str, int], None] = {}
    dropped: Counter[str] = Counter()
    for name in corpora:
        corpus = space.existing_corpus(name)
        for label, number in zip(corpus.labels(), space.memory_numbers(corpus).tolist(), strict=True):
            label = charset.fold(label)
            if len(label) > max_length:
                dropped[f"longer than {max_length} characters"] += 1
            elif not charset.holds(label):
                dropped["with characters outside the charset"] += 1
            else:
                pairs[label, number] = None
    if not pairs:
        raise DptrError(f"corpus {', '.join(corpora)} holds no usable label: {dict(dropped)}.")
    return Words([label for label, _ in pairs], np.fromiter((n for _, n in pairs), np.int64, len(pairs))), dropped


def hash_share(label: str) -> float:
    """Where a word's hash falls between 0 and 1. A share s of words is held out by keeping those below s.

    Upper and lower case fall on the same place: most CLIPs give them the same memory, and both spell the same word.
    """
    digest = hashlib.blake2b(label.casefold().encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def split(words: Words, share: float) -> tuple[Words, Words]:
    """(training words, held-out words): the latter in the order of their hash, so that the first are a fair sample."""
    places = np.array([hash_share(label) for label in words.labels])
    order = np.argsort(places, kind="stable")
    return words.take(np.flatnonzero(places >= share)), words.take(order[: int((places < share).sum())])


def epoch_batches(words: Words, batch: int, seed: int, epoch: int) -> Iterator[Words]:
    """Every word once in batches of similar length, in an order that is a function of (seed, epoch) alone."""
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    lengths = np.array([len(label) for label in words.labels])
    for indices in batch_indices(lengths, batch, random):
        yield words.take(indices)


def batch_indices(lengths: NDArray[np.int64], batch: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Every index of `lengths` once, at random, in batches of similar length."""
    order = random.permutation(len(lengths))
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), WINDOW * batch):
        window = order[start : start + WINDOW * batch]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches += [window[n : n + batch] for n in range(0, len(window), batch)]
    for n in random.permutation(len(batches)):
        yield batches[n]


class MemoryLoader:
    """Memories as the decoder sees them, whatever the layout: padded, masked, on the device.

    With `zero`, all their values are 0, so that there is nothing to read: a control.
    """

    def __init__(self, space: Space, device: torch.device, zero: bool = False) -> None:
        self._zero = zero
        self._reader = MemoryReader(space.memories)
        constants = space.constants()
        self._prefix = torch.from_numpy(constants["prefix"]).to(device, torch.float32)  # (P, D)
        self._projection = torch.from_numpy(constants["text_projection"]).to(device)  # (D, E)
        self._compact = space.fingerprint.layout == "compact"
        self.device = device
        self.width = self._reader.width

    def load(self, words: Words) -> tuple[Tensor, Tensor | None]:
        """Memory (B, M, D) float32 and its mask (B, M), None if every row counts.

        Compact memories become: the end token's row projected, the common prefix, and the rows up to the end token.
        The projected row is left out where the encoder's two widths differ.
        """
        memory, mask = self.padded(*self._reader.gather(words.memories))
        return torch.zeros_like(memory) if self._zero else memory, mask

    def padded(self, states: NDArray[np.float16], lengths: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        """The same of states end to end (ΣL, D), as they lie in the cache or come out of the encoder."""
        ragged = torch.from_numpy(states).to(self.device).float()
        counts = torch.from_numpy(lengths).to(self.device)
        B, D = len(lengths), self.width
        if not self._compact:
            return ragged.view(B, -1, D), None
        ends = counts.cumsum(0)
        head = self._prefix.expand(B, -1, -1)
        if self._projection.shape[0] == self._projection.shape[1]:
            head = torch.cat([(ragged[ends - 1] @ self._projection)[:, None], head], 1)
        H = head.shape[1]
        M = H + int(lengths.max())
        place = torch.arange(len(ragged), device=self.device)
        sample = torch.repeat_interleave(torch.arange(B, device=self.device), counts, output_size=len(ragged))
        memory = ragged.new_zeros(B, M, D)
        memory[:, :H] = head
        memory[sample, H + place - (ends - counts)[sample]] = ragged
        mask = torch.arange(M, device=self.device) < (H + counts)[:, None]
        return memory, mask
