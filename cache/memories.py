"""The memories of a space: token states of prompts, each stored once and found by the key of its token ids.

A shard holds `states` (ΣL, D) float16 contiguous, `offsets` (n + 1,) int64 into its rows, and `keys` (n, 16) uint8.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.collection import Collection
from cache.errors import DptrError
from cache.shard import map_dataset

Keys = NDArray[np.bytes_]  # (n,) of dtype S16: sorts and compares as 16 plain bytes


def key_of(ids: Sequence[int]) -> bytes:
    """16 bytes that name a memory: blake2b over its token ids as little-endian int32."""
    return hashlib.blake2b(np.asarray(ids, "<i4").tobytes(), digest_size=16).digest()


def as_keys(keys: Sequence[bytes]) -> Keys:
    """Digests as one array (n,) of S16."""
    return np.frombuffer(b"".join(keys), "S16")


def keys_to_disk(keys: Keys) -> NDArray[np.uint8]:
    """(n,) S16 to (n, 16) uint8, which every HDF5 reader shows as it is."""
    return np.ascontiguousarray(keys).view(np.uint8).reshape(-1, 16)


def keys_from_disk(keys: NDArray[np.uint8]) -> Keys:
    """Inverse of `keys_to_disk`."""
    return np.ascontiguousarray(keys).view("S16").reshape(-1)


def read_keys(collection: Collection) -> Keys:
    """The keys of all rows of a collection whose shards have them, (n,) S16."""
    keys = [keys_from_disk(shard["keys"][:]) for shard in collection.shards()]
    return np.concatenate(keys) if keys else np.empty(0, "S16")


class Memories(Collection):
    """All memories of a space."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.keys = read_keys(self)
        self._order = np.argsort(self.keys)  # (n,), so that keys[_order] is sorted
        self._sorted = self.keys[self._order]

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """The memory number of each key (n,), or -1 where it is not cached."""
        if not len(self._sorted):
            return np.full(len(keys), -1)
        place = np.searchsorted(self._sorted, keys).clip(max=len(self._sorted) - 1)
        return np.where(self._sorted[place] == keys, self._order[place], -1)

    def add(self, keys: Keys, states: NDArray[np.float16], lengths: NDArray[np.int64]) -> None:
        """Commit memories as one shard: states (ΣL, D) float16, lengths (n,). DptrError if a value is not finite.

        Memories added are found by the next `Memories` opened on the folder, not by this one.
        """
        if not np.isfinite(states).all():
            raise DptrError(
                "a feature does not fit into float16 (it is infinite or not a number): "
                "these weights cannot be cached; embed with --precision fp32 or check the weights."
            )
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.append(len(keys), {"states": states, "offsets": offsets, "keys": keys_to_disk(keys)})


class MemoryReader:
    """Random access to states by memory number, through memory maps of the shards."""

    def __init__(self, memories: Memories) -> None:
        self._states: list[NDArray[Any]] = []
        starts, lengths = [], []
        for shard in memories.shards():
            self._states.append(map_dataset(shard["states"]))
            offsets = shard["offsets"][:]
            starts.append(offsets[:-1])
            lengths.append(np.diff(offsets))
        if not starts:
            raise DptrError(f"{memories.folder} holds no memories: run dptr embed-text first.")
        self.shard = np.repeat(np.arange(len(starts)), [len(s) for s in starts])
        self.start = np.concatenate(starts)
        self.length = np.concatenate(lengths)
        self.width = int(self._states[0].shape[1])

    def gather(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
        """States of memories (n,) end to end in the order asked for: (ΣL, D) float16, and their lengths (n,)."""
        lengths = self.length[numbers]
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)  # 0 .. L-1 for each memory
        source = np.repeat(self.start[numbers], lengths) + within
        shard = np.repeat(self.shard[numbers], lengths)
        states = np.empty((len(source), self.width), np.float16)
        for number in np.unique(shard):
            here = np.flatnonzero(shard == number)
            states[here] = self._states[number][source[here]]
        return states, lengths
