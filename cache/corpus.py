"""A corpus: a named list of labels, each pointing at a memory by key, with the count of its occurrences.

A shard holds `labels` (UTF-8 end to end) with `labels_offsets` (n + 1,), `keys` (n, 16) uint8 and `counts` (n,) int64.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.collection import Collection
from cache.keys import Keys, keys_to_disk, read_keys
from cache.shard import Image, pack_strings, unpack_strings


class Corpus(Collection):
    """The labels of one corpus, each of them once."""

    def labels(self) -> list[str]:
        """All labels, in the order in which they were added."""
        return [label for part in self.label_shards() for label in part]

    def label_shards(self) -> Iterator[list[str]]:
        """The labels, one shard at a time."""
        return (unpack_strings(shard, "labels") for shard in self.shards())

    def keys(self) -> Keys:
        """The memory key of each label, (n,) S16."""
        return read_keys(self)

    def counts(self) -> NDArray[np.int64]:
        """How often each label occurred in its source, (n,)."""
        counts = [found for (found,) in self.columns("counts")]
        return np.concatenate(counts) if counts else np.empty(0, np.int64)

    def shard_of(self, labels: Sequence[str], keys: Keys, counts: Sequence[int]) -> Image:
        """Labels as one shard."""
        columns: dict[str, NDArray[Any]] = {"keys": keys_to_disk(keys), "counts": np.asarray(counts, np.int64)}
        return self.image(len(labels), {**pack_strings("labels", labels), **columns})

    def add(self, labels: Sequence[str], keys: Keys, counts: Sequence[int]) -> None:
        """Commit labels as one shard. Their memories must be committed already."""
        self.commit(self.shard_of(labels, keys, counts))
