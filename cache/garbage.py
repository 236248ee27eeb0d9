"""What nothing points at, and taking it away: `dptr cache gc`.

Memories that no corpus points at, files that a killed writer left, and corpora or banks that are named to be dropped.
A shard of which a part is still used is written anew with that part; the manifest changes in one step, then files go.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.files import delete
from cache.keys import Keys, keys_from_disk
from cache.manifest import MANIFEST, unlisted
from cache.shard import SHARD_BYTES, Shard
from cache.space import Space, collections


@dataclass(frozen=True)
class Garbage:
    """What can go from one space."""

    space: Space
    folders: list[Path]  # of dropped corpora and banks
    files: list[Path]  # never finished
    unused: dict[str, NDArray[np.bool_]]  # shard of memories: which of its rows nothing points at

    @property
    def memories(self) -> int:
        return sum(int(rows.sum()) for rows in self.unused.values())

    @property
    def bytes(self) -> int:
        """On the disk, about: of a shard that goes in part, its share."""
        shares = {e.shard: self.unused[e.shard].mean() for e in self.space.memories.entries if e.shard in self.unused}
        states = sum(e.bytes * shares.get(e.shard, 0) for e in self.space.memories.entries)
        inside = [p for folder in self.folders for p in folder.rglob("*") if p.is_file()]
        return int(states) + sum(p.stat().st_size for p in [*self.files, *inside])

    def __bool__(self) -> bool:
        return bool(self.folders or self.files or self.unused)


def find_garbage(space: Space, corpora: Sequence[str] = (), banks: Sequence[str] = ()) -> Garbage:
    """What can go, besides the corpora and banks named; the space's lock must be held.

    Raises WrongUse if one named does not exist, Damaged if a corpus cannot be read: what it points at is not known.
    """
    dropped = [space.existing_corpus(name).folder for name in corpora]
    dropped += [space.existing_bank(name).folder for name in banks]
    kept = [space.corpus(name) for name in space.corpora() if name not in corpora]
    used = np.unique(np.concatenate([np.empty(0, "S16"), *(corpus.keys() for corpus in kept)]))
    unused = {shard.entry.shard: ~np.isin(_keys(shard), used) for shard in space.memories.shards()}
    folders = [f for f in collections(space.folder) if f not in dropped]
    files = [p for folder in [space.folder, *folders] for p in unlisted(folder)]
    return Garbage(space, dropped, files, {shard: rows for shard, rows in unused.items() if rows.any()})


def remove(garbage: Garbage) -> None:
    """Take it away; the space's lock must still be held. Killed on the way, the same again takes the rest."""
    for folder in garbage.folders:
        delete(folder / MANIFEST)  # from here on it is empty, whatever happens
        shutil.rmtree(folder, ignore_errors=True)
    for path in garbage.files:
        delete(path)
    memories, unused = garbage.space.memories, garbage.unused
    if unused:
        memories.replace([e for e in memories.entries if e.shard not in unused], _rest(garbage))


def _rest(garbage: Garbage) -> Iterator[tuple[int, Mapping[str, NDArray[Any]]]]:
    """What is still used of the shards that go, in shards of the usual size: (rows, datasets)."""
    parts: list[dict[str, NDArray[Any]]] = []
    for entry in garbage.space.memories.entries:
        if entry.shard not in garbage.unused or garbage.unused[entry.shard].all():
            continue
        part = _used(Shard(garbage.space.memories.folder, entry), ~garbage.unused[entry.shard])
        if parts and sum(p["states"].nbytes for p in [*parts, part]) > SHARD_BYTES:
            yield _joined(parts)
            parts = []
        parts.append(part)
    if parts:
        yield _joined(parts)


def _used(shard: Shard, used: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    lengths = np.diff(shard.read("offsets"))
    return {
        "states": shard.read("states")[np.repeat(used, lengths)],
        "lengths": lengths[used],
        "keys": shard.read("keys")[used],
        "checks": shard.read("checks")[used],
    }


def _joined(parts: list[dict[str, NDArray[Any]]]) -> tuple[int, Mapping[str, NDArray[Any]]]:
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    lengths = whole.pop("lengths")
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return len(lengths), {
        "states": whole["states"],
        "offsets": offsets,
        "keys": whole["keys"],
        "checks": whole["checks"],
    }


def _keys(shard: Shard) -> Keys:
    return keys_from_disk(shard.read("keys"))
