"""What nothing points at, and its removal: `dptr cache gc`.

That is: memories that no corpus points at, tables of neighbours whose bank or memories are gone, files left by a writer
that was killed, and corpora or banks to be dropped.
If part of a shard is still used, that part is written again. The manifest changes in one step before files are deleted.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.files import delete
from cache.keys import Keys, keys_from_disk
from cache.manifest import MANIFEST, unlisted
from cache.neighbours import Neighbours
from cache.shard import SHARD_BYTES, Entry, Image, Shard
from cache.space import JOBS, Space, collections

Part = tuple[Keys, NDArray[np.float16], NDArray[np.int64]]  # keys (n,), states (ΣL, D), lengths (n,)


@dataclass(frozen=True)
class Garbage:
    """What can be removed from one space."""

    space: Space
    folders: list[Path]  # of dropped corpora, banks and word images, and of a job that nobody drives
    files: list[Path]  # never finished
    unused: dict[str, NDArray[np.bool_]]  # for a shard of memories: which of them nothing points at
    tables: list[tuple[Neighbours, list[Entry]]]  # of neighbours, and the shards of each that are kept

    @property
    def memories(self) -> int:
        return sum(int(rows.sum()) for rows in self.unused.values())

    @property
    def bytes(self) -> int:
        """Bytes on disk, roughly: of a shard that is partly used, its unused share."""
        shares = {e.shard: self.unused[e.shard].mean() for e in self.space.memories.entries if e.shard in self.unused}
        states = sum(e.bytes * shares.get(e.shard, 0) for e in self.space.memories.entries)
        inside = [p for folder in self.folders for p in folder.rglob("*") if p.is_file()]
        rows = sum(table.bytes - sum(e.bytes for e in kept) for table, kept in self.tables)
        return int(states) + rows + sum(p.stat().st_size for p in [*self.files, *inside])

    def __bool__(self) -> bool:
        return bool(self.folders or self.files or self.unused or self.tables)


def find_garbage(
    space: Space, corpora: Sequence[str] = (), banks: Sequence[str] = (), crops: Sequence[str] = ()
) -> Garbage:
    """What can be removed, including the named corpora, banks and sizes of word images. The space must be locked.

    Raises WrongUse if a name does not exist, Damaged if a corpus cannot be read, since what it points at is unknown.
    """
    dropped = [space.existing_corpus(name).folder for name in corpora]
    dropped += [space.existing_bank(name).folder for name in banks]
    dropped += [space.existing_crops(size).folder for size in crops]
    left = {name for name in space.banks() if space.bank(name).entries} - set(banks)
    dropped += [space.neighbours(name).folder for name in space.neighbour_tables() if name not in left]
    dropped += [space.folder / JOBS] * (space.folder / JOBS).is_dir()
    kept = [space.corpus(name) for name in space.corpora() if name not in corpora]
    used = np.unique(np.concatenate([np.empty(0, "S16"), *(corpus.keys() for corpus in kept)]))
    unused = {shard.entry.shard: ~np.isin(_keys(shard), used) for shard in space.memories.shards()}
    folders = [f for f in collections(space.folder) if f not in dropped]
    files = [p for folder in [space.folder, *folders] for p in unlisted(folder)]
    tables = [_kept(space.neighbours(name), used) for name in space.neighbour_tables() if name in left]
    changed = [(table, kept) for table, kept in tables if len(kept) < len(table.entries)]
    return Garbage(space, dropped, files, {shard: rows for shard, rows in unused.items() if rows.any()}, changed)


def remove(garbage: Garbage) -> None:
    """Remove it; the space must still be locked. If this is killed halfway, doing it again removes the rest."""
    for folder in garbage.folders:
        delete(folder / MANIFEST)  # from here on the collection is empty, whatever happens
        shutil.rmtree(folder, ignore_errors=True)
    for path in garbage.files:
        delete(path)
    for table, kept in garbage.tables:
        table.replace(kept, [])
    memories, unused = garbage.space.memories, garbage.unused
    if unused:
        memories.replace([e for e in memories.entries if e.shard not in unused], _rest(garbage))


def _rest(garbage: Garbage) -> Iterator[Image]:
    """What is still used of the shards to be removed, in shards of the usual size."""
    memories = garbage.space.memories
    parts: list[Part] = []
    for entry in memories.entries:
        if entry.shard not in garbage.unused or garbage.unused[entry.shard].all():
            continue
        part = _used(Shard(memories.folder, entry), ~garbage.unused[entry.shard])
        if parts and sum(states.nbytes for _, states, _ in [*parts, part]) > SHARD_BYTES:
            yield memories.shard_of(*map(np.concatenate, zip(*parts, strict=True)))
            parts = []
        parts.append(part)
    if parts:
        yield memories.shard_of(*map(np.concatenate, zip(*parts, strict=True)))


def _used(shard: Shard, used: NDArray[np.bool_]) -> Part:
    lengths = np.diff(shard.read("offsets"))
    return _keys(shard)[used], shard.read("states")[np.repeat(used, lengths)], lengths[used]


def _kept(table: Neighbours, used: Keys) -> tuple[Neighbours, list[Entry]]:
    """The shards of a table that have a row of a memory in use. The other rows are few bytes, and stay right."""
    return table, [shard.entry for shard in table.shards() if np.isin(_keys(shard), used).any()]


def _keys(shard: Shard) -> Keys:
    return keys_from_disk(shard.read("keys"))
