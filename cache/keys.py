"""Keys, the 16 bytes that identify a memory or a picture, and the table that finds them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.collection import Collection

Keys = NDArray[np.bytes_]  # (n,) of dtype S16: sorts and compares as 16 plain bytes


def as_keys(keys: Sequence[bytes]) -> Keys:
    """Digests as one array (n,) of S16."""
    return np.frombuffer(b"".join(keys), "S16")


def key_bytes(keys: Keys) -> list[bytes]:
    """Inverse of `as_keys`: all 16 bytes of each key, where numpy's own `tolist` drops zeros at the end."""
    data = keys.tobytes()
    return [data[n : n + 16] for n in range(0, len(data), 16)]


def keys_to_disk(keys: Keys) -> NDArray[np.uint8]:
    """(n,) S16 to (n, 16) uint8, which every HDF5 reader shows byte by byte."""
    return np.ascontiguousarray(keys).view(np.uint8).reshape(-1, 16)


def keys_from_disk(keys: NDArray[np.uint8]) -> Keys:
    """Inverse of `keys_to_disk`."""
    return np.ascontiguousarray(keys).view("S16").reshape(-1)


def read_keys(collection: Collection) -> Keys:
    """The keys of all rows of a collection whose shards have them, (n,) S16."""
    keys = [keys_from_disk(found) for (found,) in collection.columns("keys")]
    return np.concatenate(keys) if keys else np.empty(0, "S16")


class KeyTable:
    """Finds the keys of a collection, with 20 bytes for each: two sorted halves of 8 bytes, and its row."""

    def __init__(self, collection: Collection) -> None:
        """Reads all keys; takes 28 bytes for each while sorting."""
        first, second = np.empty(collection.rows, np.uint64), np.empty(collection.rows, np.uint64)
        start = 0
        for (keys,) in collection.columns("keys"):
            end = start + len(keys)
            first[start:end], second[start:end] = keys.view(np.uint64).T
            start = end
        self._order = np.argsort(first).astype(np.uint32 if len(first) < 2**32 else np.int64)
        self._first, first = _taken(first, self._order), second  # frees the unsorted half before sorting the other
        self._second = _taken(first, self._order)
        self._run = (
            1  # longest run of keys with equal first halves; of 40 tables of a billion keys, one has more than 1
        )
        while (self._first[self._run :] == self._first[: -self._run]).any():
            self._run += 1

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """The row of each key (m,) in the collection, or -1."""
        found = np.full(len(keys), -1)
        if not len(self._order):
            return found
        first, second = np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 2).T
        place = np.searchsorted(self._first, first)
        for _ in range(self._run):
            here = place.clip(max=len(self._order) - 1)
            same = (self._first[here] == first) & (self._second[here] == second)
            found[same] = self._order[here[same]]
            place += 1
        return found


def _taken(values: NDArray[np.uint64], order: NDArray[Any]) -> NDArray[np.uint64]:
    """`values[order]`, in pieces: numpy would copy `order` with 8 bytes for each index."""
    taken = np.empty_like(values)
    for start in range(0, len(order), 1 << 16):
        taken[start : start + (1 << 16)] = values[order[start : start + (1 << 16)]]
    return taken
