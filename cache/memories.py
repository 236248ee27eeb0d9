"""The memories of a space: token states of prompts, each stored once and found by the key of its token ids.

A shard holds `states` (ΣL, D) float16 contiguous, `offsets` (n + 1,) int64 into its rows, `keys` (n, 16) uint8, and
`sums` (n,) uint64: of each memory the sum of its words modulo 2^64, which is checked whenever a memory is read. A word
is 8 bytes, little-endian, where a row is a multiple of that, else 2.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cache.collection import Collection
from cache.errors import Damaged, DptrError
from cache.keys import Keys, KeyTable, keys_to_disk


def key_of(ids: Sequence[int]) -> bytes:
    """16 bytes that name a memory: blake2b over its token ids as little-endian int32."""
    return hashlib.blake2b(np.asarray(ids, "<i4").tobytes(), digest_size=16).digest()


def word_sums(states: NDArray[np.float16], starts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The sum of words of each memory, (n,): states (ΣL, D), its first rows (n,), ascending, no memory empty."""
    word = np.uint64 if states.shape[1] % 4 == 0 else np.uint16
    rows = states.view(word).sum(1, dtype=np.uint64)
    return np.add.reduceat(rows, starts) if len(starts) else np.empty(0, np.uint64)


class Memories(Collection):
    """All memories of a space. Opening reads the manifest; the first `find` reads all keys, and never a state."""

    @cached_property
    def table(self) -> KeyTable:
        """Finds memories by key; memories added after the first use are not in it."""
        return KeyTable(self)

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """The memory number of each key (n,), or -1 where it is not cached."""
        return self.table.find(keys)

    def add(self, keys: Keys, states: NDArray[np.float16], lengths: NDArray[np.int64]) -> None:
        """Commit memories as one shard: states (ΣL, D) float16, lengths (n,). DptrError if a value is not finite."""
        check_finite(states, "a text feature")
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        sums = word_sums(states, offsets[:-1])
        self.append(len(keys), {"states": states, "offsets": offsets, "keys": keys_to_disk(keys), "sums": sums})


def check_finite(values: NDArray[np.float16], what: str) -> None:
    """DptrError if a value is infinite or not a number: all bits of its exponent are set."""
    if values.size and (values.view(np.uint16) & 0x7FFF).max() >= 0x7C00:
        raise DptrError(
            f"{what} does not fit into float16 (it is infinite or not a number): these weights cannot be cached; "
            "embed with --precision fp32 or check the weights."
        )


class MemoryReader:
    """Random access to states by memory number, through memory maps of the shards; each is checked as it is read."""

    def __init__(self, memories: Memories) -> None:
        """DptrError if there are none."""
        self._shards = list(memories.shards())
        if not self._shards:
            raise DptrError(f"{memories.folder} holds no memories: run dptr embed-text first.")
        self._states = [shard.map("states") for shard in self._shards]
        offsets = [shard.read("offsets") for shard in self._shards]
        for shard, found, states in zip(self._shards, offsets, self._states, strict=True):
            if found[-1] != len(states) or (np.diff(found) < 1).any():
                raise Damaged(shard.path, "its offsets are not those of its states")
        self._sums = np.concatenate([shard.read("sums") for shard in self._shards])
        self.shard = np.repeat(np.arange(len(offsets)), [len(o) - 1 for o in offsets])
        self.start = np.concatenate([o[:-1] for o in offsets])
        self.length = np.concatenate([np.diff(o) for o in offsets])
        self.width = int(self._states[0].shape[1])

    def gather(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
        """States of memories (n,) end to end in the order asked for: (ΣL, D) float16, and their lengths (n,).

        Damaged, naming the shard, if a memory is not what was written.
        """
        lengths = self.length[numbers]
        ends = np.cumsum(lengths)
        within = np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)  # 0 .. L-1 for each memory
        source = np.repeat(self.start[numbers], lengths) + within
        shard = np.repeat(self.shard[numbers], lengths)
        states = np.empty((len(source), self.width), np.float16)
        for number in np.unique(shard):
            here = np.flatnonzero(shard == number)
            states[here] = self._states[number][source[here]]
        wrong = np.flatnonzero(word_sums(states, ends - lengths) != self._sums[numbers])
        if len(wrong):
            raise Damaged(self._shards[self.shard[numbers[wrong[0]]]].path, "the states of a memory changed")
        return states, lengths
