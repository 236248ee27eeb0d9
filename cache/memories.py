"""The memories of a space: token states of prompts, each stored once and found by the key of its token ids.

A shard holds `states` (ΣL, D) float16, contiguous; `offsets` (n + 1,) int64 into its rows; `keys` (n, 16) uint8; and
`checks` (n,) uint32, the CRC-32 of each memory's bytes, which is compared whenever the memory is read.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from isal.isal_zlib import crc32
from numpy.typing import NDArray

from cache.collection import Collection
from cache.crc import joined
from cache.errors import Damaged, DptrError
from cache.keys import Keys, KeyTable, keys_to_disk
from cache.objects import TOGETHER as REQUESTS
from cache.remote import RemoteShard
from cache.shard import Image, check_finite

BLOCK = 1 << 20  # bytes of a shard that are read in one piece, unless memories are read at random
TOGETHER = 256  # memories that are checked in one pass


def key_of(ids: Sequence[int]) -> bytes:
    """The 16-byte key of a memory: that of its `packed` token ids."""
    return key_of_packed(packed(ids))


def key_of_packed(ids: bytes) -> bytes:
    """The same, of token ids that are packed already: their blake2b."""
    return hashlib.blake2b(ids, digest_size=16).digest()


def packed(ids: Sequence[int]) -> bytes:
    """Token ids as little-endian int32."""
    return struct.pack(f"<{len(ids)}i", *ids)


def checks_of(states: NDArray[np.float16], lengths: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The CRC-32 of each of n memories end to end: states (ΣL, D) contiguous, lengths (n,)."""
    data = states.reshape(-1).view(np.uint8).data
    ends = np.concatenate([[0], np.cumsum(lengths)]) * states.shape[1] * 2
    return np.fromiter((crc32(data[a:b]) for a, b in pairwise(ends.tolist())), np.uint32, len(lengths))


class Memories(Collection):
    """All memories of a space. Opening reads the manifest, the first `find` all keys; neither reads a state."""

    @cached_property
    def table(self) -> KeyTable:
        """Finds memories by key. Memories added after its first use are not in it."""
        return KeyTable(self)

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """The number of each key's memory (n,), or -1 if it is not cached."""
        return self.table.find(keys)

    def add(self, keys: Keys, states: NDArray[np.float16], lengths: NDArray[np.int64]) -> None:
        """Commit memories as one shard, see `shard_of`."""
        self.commit(self.shard_of(keys, states, lengths))

    def shard_of(self, keys: Keys, states: NDArray[np.float16], lengths: NDArray[np.int64]) -> Image:
        """Memories as one shard: states (ΣL, D) float16, lengths (n,). DptrError if a value is not finite."""
        check_finite(states, "a text feature")
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        checks = checks_of(states, lengths)
        datasets: dict[str, NDArray[Any]] = {
            "states": states,
            "offsets": offsets,
            "keys": keys_to_disk(keys),
            "checks": checks,
        }
        return self.image(len(keys), datasets)


class MemoryReader:
    """Reads states by memory number, at random or in blocks, and checks each memory as it is read.

    Holds 20 bytes for each memory: its `shard`, its `start` and `length` in rows, and its check.
    """

    def __init__(self, memories: Memories) -> None:
        """DptrError if there are no memories, Damaged if offsets do not fit the states."""
        self._shards = list(memories.shards())
        if not self._shards:
            raise DptrError(f"{memories.folder} holds no memories: run dptr embed-text first.")
        self.remote = isinstance(self._shards[0], RemoteShard)
        self._states = [] if self.remote else [shard.map("states") for shard in self._shards]
        offsets, checks = zip(*memories.columns("offsets", "checks"), strict=True)
        for shard, found in zip(self._shards, offsets, strict=True):
            if found[-1] != shard.shape("states")[0] or (np.diff(found) < 1).any():
                raise Damaged(shard.path, "its offsets do not fit its states")
        self._checks = np.concatenate(checks)
        self.shard = np.repeat(np.arange(len(offsets), dtype=np.int32), [len(o) - 1 for o in offsets])
        self.start = np.concatenate([o[:-1] for o in offsets])
        self.length = np.concatenate([np.diff(o).astype(np.int32) for o in offsets])
        self.width = int(self._shards[0].shape("states")[1])

    def gather(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
        """States of memories (n,), end to end in the order asked for, (ΣL, D) float16, and their lengths (n,).

        Damaged, naming the shard, if a memory does not match its check.
        """
        if self.remote:
            return self._gather_blocks(numbers)
        lengths = self.length[numbers].astype(np.int64)
        source = _rows(self.start[numbers], lengths)
        shard = np.repeat(self.shard[numbers], lengths)
        states = np.empty((len(source), self.width), np.float16)
        for number in np.unique(shard):
            here = np.flatnonzero(shard == number)
            states[here] = self._states[number][source[here]]
        self._check(numbers, states, lengths)
        return states, lengths

    def nbytes(self, numbers: NDArray[np.int64]) -> int:
        """Bytes of the states of memories."""
        return int(self.length[numbers].sum(dtype=np.int64)) * self.width * 2

    def block(self, numbers: NDArray[np.int64]) -> NDArray[np.int32]:
        """The block of BLOCK bytes in which each memory begins, counted over all shards."""
        rows = self._block_rows()
        first = np.cumsum([0, *(shard.shape("states")[0] // rows + 1 for shard in self._shards)], dtype=np.int32)
        return first[self.shard[numbers]] + (self.start[numbers] // rows).astype(np.int32)

    def by_block(self, numbers: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], slice]]:
        """Memories, given in ascending order, a block at a time; and the rows that they take of them all end to end."""
        ends = np.cumsum(self.length[numbers], dtype=np.int64)
        edges = [0, *(np.flatnonzero(np.diff(self.block(numbers))) + 1).tolist(), len(numbers)]
        rows = [0, *ends[np.array(edges[1:]) - 1].tolist()]
        for (a, b), (first, last) in zip(pairwise(edges), pairwise(rows), strict=True):
            yield numbers[a:b], slice(first, last)

    def read_block(self, numbers: NDArray[np.int64], out: NDArray[np.float16]) -> None:
        """Read the states of one block's memories, numbers ascending, end to end into `out` (ΣL, D).

        They are read in disk order, with whatever lies between them; of a cache elsewhere, the whole block. Raises
        Damaged as `gather` does.
        """
        shard = self._shards[self.shard[numbers[0]]]
        if isinstance(shard, RemoteShard):
            self._read_whole_block(shard, numbers, out)
            return
        lengths, starts = self.length[numbers].astype(np.int64), self.start[numbers]
        ends = np.cumsum(lengths)
        gaps = np.flatnonzero(starts[1:] != (starts + lengths)[:-1])
        outs = np.split(out, ends[gaps])
        shard.read_rows("states", starts[[0, *(gaps + 1)]].tolist(), outs)
        self._check(numbers, out, lengths)

    def _read_whole_block(self, shard: RemoteShard, numbers: NDArray[np.int64], out: NDArray[np.float16]) -> None:
        rows = self._block_rows()
        here = np.searchsorted(self.shard, self.shard[numbers[0]] + np.arange(2, dtype=np.int32))
        block = self.start[numbers[0]] // rows
        within = self.start[here[0] : here[1]]
        whole = here[0] + np.arange(*np.searchsorted(within, [block * rows, (block + 1) * rows]))
        first, lengths = int(self.start[whole[0]]), self.length[whole].astype(np.int64)
        states = shard.rows("states", first, int(lengths.sum()), lambda s: self._wrong(whole, s, lengths) is None)
        rows_wanted = _rows(self.start[numbers] - first, self.length[numbers].astype(np.int64))
        np.take(states, rows_wanted, 0, out, "clip")  # "clip" is what lets it write there without a copy

    def _gather_blocks(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
        ordered, places = np.unique(numbers, return_inverse=True)
        lengths = self.length[ordered].astype(np.int64)
        states = np.empty((lengths.sum(), self.width), np.float16)
        with ThreadPoolExecutor(REQUESTS) as pool:
            list(pool.map(lambda part: self.read_block(part[0], states[part[1]]), self.by_block(ordered)))
        return states[_rows((np.cumsum(lengths) - lengths)[places], lengths[places])], lengths[places]

    def _block_rows(self) -> int:
        return max(1, BLOCK // (self.width * 2))

    def _check(self, numbers: NDArray[np.int64], states: NDArray[np.float16], lengths: NDArray[np.int64]) -> None:
        wrong = self._wrong(numbers, states, lengths)
        if wrong is not None:
            raise Damaged(self._shards[self.shard[wrong]].path, "a memory does not match its check")

    def _wrong(
        self, numbers: NDArray[np.int64], states: NDArray[np.float16], lengths: NDArray[np.int64]
    ) -> np.int64 | None:
        """The first memory that does not match its check."""
        ends = np.cumsum(lengths)
        for n in range(0, len(numbers), TOGETHER):
            some, rows = slice(n, n + TOGETHER), slice(ends[n] - lengths[n], ends[n : n + TOGETHER][-1])
            data, checks = states[rows], self._checks[numbers[some]]
            if crc32(data.reshape(-1).view(np.uint8).data) != joined(checks, lengths[some], self.width * 2):
                return np.int64(numbers[some][checks_of(data, lengths[some]) != checks][0])
        return None


def _rows(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of n pieces end to end (ΣL,), from their starts (n,) and lengths (n,)."""
    return np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
