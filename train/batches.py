"""From the cache to batches: which words train and which are held out, their order, and their memories as tensors.

Shape letters: B batch, S ids of a label, M memory rows, D width, P rows of the common prefix.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.errors import DptrError
from cache.memories import MemoryReader
from cache.space import Space
from models.charset import Charset
from models.device import upload

WINDOW = 64  # batches whose words are sorted by length among themselves, so that a batch needs little padding
PIECE = 1 << 16  # words whose labels are texts at the same time


@dataclass(frozen=True)
class Words:
    """Labels as the charset's ids, and the numbers of their memories: 35 bytes a word of up to 25 characters."""

    ids: NDArray[Any]  # (n, S): BOS, characters, EOS, PAD
    memories: NDArray[np.int64]  # (n,)
    charset: Charset

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> list[str]:
        """The labels as texts, made anew."""
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
    """All usable labels of some corpora, as the charset writes them, and the count of those not usable, by reason.

    Each label comes once for each of its memories, of which it can have two if the charset has one case.

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
        raise DptrError(f"corpus {', '.join(corpora)} holds no usable label: {dict(dropped)}.")
    both = np.concatenate([words.ids.view(np.uint8), words.memories[:, None].view(np.uint8)], 1)
    first = np.unique(both.view(f"V{both.shape[1]}"), return_index=True)[1]  # of each label with a memory
    return words.take(np.sort(first)), dropped


def hash_share(label: str) -> float:
    """Where a word's hash falls between 0 and 1. A share s of words is held out by keeping those below s.

    Upper and lower case fall on the same place: most CLIPs give them the same memory, and both spell the same word.
    """
    digest = hashlib.blake2b(label.casefold().encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def split(words: Words, share: float) -> tuple[Words, Words]:
    """(training words, held-out words): the latter in the order of their hash, so that the first are a fair sample."""
    parts = (words.take(np.arange(n, min(n + PIECE, len(words)))) for n in range(0, len(words), PIECE))
    places = np.fromiter((hash_share(label) for part in parts for label in part.labels), np.float64, len(words))
    order = np.argsort(places, kind="stable")
    return words.take(np.flatnonzero(places >= share)), words.take(order[: int((places < share).sum())])


@dataclass(frozen=True)
class Plan:
    """How an epoch's words become batches of similar length: a function of these fields and the epoch alone.

    `batch` is what each of `ranks` processes takes in a step. Together they take the batches that one process would
    whose `batch` is theirs together; but where an order of blocks is given, each has a share of the blocks, so that
    nothing is read twice. Up to `ranks - 1` words come twice, so that all ranks take the same number of steps.
    """

    batch: int
    seed: int
    rank: int = 0
    ranks: int = 1

    def count(self, words: int) -> int:
        """Batches of an epoch."""
        return -(-self._share(words) // self.batch)

    def batches(self, lengths: NDArray[Any], epoch: int, start: int = 0) -> Iterator[NDArray[np.int64]]:
        """The batches of an epoch from number `start` on: indices (B,) into the words' `lengths` (n,)."""
        for window in self.windows(lengths, epoch, start):
            yield from window

    def windows(
        self,
        lengths: NDArray[Any],
        epoch: int,
        start: int = 0,
        window: int = WINDOW,
        order: Callable[[np.random.Generator], NDArray[np.int64]] | None = None,
    ) -> Iterator[list[NDArray[np.int64]]]:
        """The same, `window` batches at a time: words are shuffled and sorted by length within a window.

        `order` draws the order in which words come to the windows, which is any if there is none.
        """
        n = len(lengths)
        random = self._random(epoch, 0)
        drawn = order(random) if order else random.permutation(n)
        share, taken, first = np.resize(drawn, self._share(n) * self.ranks), self.batch * self.ranks, self.rank
        if order:
            share, taken, first = share.reshape(self.ranks, -1)[self.rank], self.batch, 0
        size, step = window * taken, taken // self.batch
        for number in range(start // window, -(-len(share) // size)):
            random = self._random(epoch, 1 + number)
            words = random.permutation(share[number * size : (number + 1) * size])
            words = words[np.argsort(lengths[words], kind="stable")]
            batches = [words[k : k + taken][first::step] for k in range(0, len(words), taken)]
            places = random.permutation(len(batches))[max(0, start - number * window) :]
            if len(places):  # the last window may be short, and `start` behind it
                yield [batches[k] for k in places]

    def _share(self, words: int) -> int:
        return -(-words // self.ranks)

    def _random(self, *what: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, *what])))


class MemoryLoader:
    """Memories as the decoder sees them, whatever the layout: padded, masked, on the device.

    With `zero`, all their values are 0, so that there is nothing to read: a control.
    """

    def __init__(self, space: Space, device: torch.device, zero: bool = False) -> None:
        self._zero = zero
        self.reader = MemoryReader(space.memories)
        constants = space.constants()
        self._prefix = torch.from_numpy(constants["prefix"]).to(device, torch.float32)  # (P, D)
        self._projection = torch.from_numpy(constants["text_projection"]).to(device)  # (D, E)
        self._compact = space.fingerprint.layout == "compact"
        self.device = device
        self.width = self.reader.width

    def load(self, words: Words) -> tuple[Tensor, Tensor | None]:
        """Memory (B, M, D) float32 and its mask (B, M), None if every row counts.

        Compact memories become: the end token's row projected, the common prefix, and the rows up to the end token.
        The projected row is left out where the encoder's two widths differ.
        """
        return self.padded(*self.reader.gather(words.memories))

    def padded(self, states: Tensor | NDArray[np.float16], lengths: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        """The same of states end to end (ΣL, D), as they lie in the cache or come out of the encoder.

        Does not wait for the device.
        """
        memory, mask = self._padded(upload(torch.as_tensor(states), self.device).float(), lengths)
        return torch.zeros_like(memory) if self._zero else memory, mask

    def _padded(self, ragged: Tensor, lengths: NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        B, D = len(lengths), self.width
        if not self._compact:
            return ragged.view(B, -1, D), None
        counts = upload(torch.from_numpy(lengths), self.device)
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
