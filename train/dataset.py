"""The cache as a torch dataset, for your own training loop; see docs/own-loop.md. Needs no open_clip.

    data = MemoryDataset("dptr-cache", "words", bank="photos", perturb="orp(10%)", batch=256)
    for epoch in range(20):
        data.set_epoch(epoch)
        for batch in DataLoader(data, batch_size=None, num_workers=2):
            ...

Shape letters: B batch, M memory rows, D width, L characters.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from torch.utils.data import IterableDataset, get_worker_info

from cache.errors import DptrError, WrongUse
from cache.remote import on_disk
from cache.space import open_space
from models.charset import Charset, characters
from train.data.plan import Plan
from train.data.word_batches import MemoryLoader
from train.data.words import Words, read_words, split
from train.perturb import perturbation
from train.perturb.photographs import HowToRead

MAX_LENGTH = 25  # characters, as in the released code


class MemoryDataset(IterableDataset[dict[str, Any]]):
    """Yields batches of words with their memories; an epoch is this rank's share of the words, each once, shuffled.

    Each item is a dictionary whose tensors are on the CPU:
    `memory` (B, M, D) float32; `mask` (B, M) bool, False where a row is padding; `labels`, B strings;
    `targets` (B, L + 2) int64, the labels as ids of `charset`: BOS, characters, EOS, PAD.

    An epoch depends on (seed, epoch, rank) alone, and up to `ranks - 1` of its words come twice, so that all ranks take
    as many steps of as many words. DataLoader workers share its batches; their number changes neither
    the contents of a batch nor the order of batches. Memories are gathered from memory-mapped shards.
    """

    def __init__(
        self,
        cache: str | Path,
        corpus: str | Sequence[str],
        *,
        space: str | None = None,
        bank: str | None = None,
        perturb: str | None = None,
        batch: int = 256,
        seed: int = 0,
        held_out: float = 0.0,
        charset: str = "94",
        max_length: int = MAX_LENGTH,
        rank: int | None = None,
        ranks: int | None = None,
    ) -> None:
        """Load the words of `corpus` without the fraction `held_out`.

        `space`, `bank`, `perturb` and `charset` mean the same as in `dptr pretrain`. `rank` and `ranks` default to
        those of torch.distributed if it is initialised, otherwise to a single process. Raises WrongUse for a name that
        is not in the cache, DptrError if no word is usable.
        """
        names = [corpus] if isinstance(corpus, str) else list(corpus)
        self.charset, self.batch, self.seed = Charset(characters(charset)), batch, seed
        if batch < 1 or not 0 <= held_out < 1:
            raise WrongUse(f"batch must be at least 1 and held_out from 0 to below 1, not {batch} and {held_out}.")
        self._perturbation = perturbation(perturb, bank)
        on_disk(Path(cache), "MemoryDataset, which reads at random,")
        found = open_space(Path(cache), space)
        words, self.dropped = read_words(found, names, self.charset, max_length)
        self.words, self._kept = split(words, held_out)
        if not len(self.words):
            raise DptrError(f"all {len(words):,} words are held out: use more words, or a smaller held_out.")
        self._loader = MemoryLoader(found, torch.device("cpu"))
        self._perturbation.prepare_from(found, self._loader, self.words, HowToRead(particular=True))
        grouped = distributed.is_available() and distributed.is_initialized()
        self._rank = rank if rank is not None else distributed.get_rank() if grouped else 0
        self._ranks = ranks if ranks is not None else distributed.get_world_size() if grouped else 1
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch to iterate over next: each has its own order and perturbations."""
        self._epoch = epoch

    def held_out(self) -> Iterator[dict[str, Any]]:
        """Yield the held-out words in batches, ordered by hash; nothing random is done to their memories."""
        for start in range(0, len(self._kept), self.batch):
            part = self._kept.take(range(start, min(start + self.batch, len(self._kept))))
            yield _item(part, *self._perturbation.evaluated(*self._loader.load(part)))

    def __len__(self) -> int:
        """Number of batches in an epoch of this rank."""
        return self._plan.count(len(self.words))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        batches = enumerate(self._plan.batches(self.words.lengths, self._epoch))
        for number, whole in islice(batches, first, None, step):
            even = np.resize(whole, -(-len(whole) // self._ranks) * self._ranks)  # no rank waits for another's step
            words = self.words.take(even[self._rank :: self._ranks])
            generator = torch.Generator().manual_seed(hash((self.seed, self._epoch, self._rank, number)) % 2**63)
            memory, mask = self._loader.load(words)
            numbers = torch.from_numpy(words.memories)
            yield _item(words, *self._perturbation(memory, mask, generator, numbers))

    @property
    def _plan(self) -> Plan:
        return Plan(self.batch * self._ranks, self.seed)


def _item(words: Words, memory: Tensor, mask: Tensor | None) -> dict[str, Any]:
    return {
        "memory": memory,
        "mask": torch.ones(memory.shape[:2], dtype=torch.bool) if mask is None else mask,
        "labels": words.labels,
        "targets": words.targets(),
    }
