"""A cache elsewhere made what one here is, or the other way round: `dptr cache push LOCAL URL`, `pull URL LOCAL`.

Shards that one end lacks go over, several at a time, and after every few of them the manifest that lists them. So what
a reader finds is complete at any moment, and the same command goes on after it was stopped. Nothing is ever removed or
replaced: an end that has shards which the other lacks is refused.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from cache.bank import SKIPPED
from cache.errors import Damaged, DptrError, WrongUse
from cache.files import make_folder, write_whole
from cache.index_file import INDEX, is_whole
from cache.lock import writing
from cache.manifest import MANIFEST, manifest_bytes, read_manifest, shard_number
from cache.remote import Remote, local, on_disk, remote_of, shown
from cache.shard import Entry
from cache.space import SPACE, collections, spaces

AT_ONCE = 4  # shards that go over at one time, each in memory
COMMIT = 16  # shards after which they are listed
ORDER = ("constants", "memories", "banks", "crops", "neighbours", "corpora")  # each points only at those before it
SEAL = 36  # bytes at the end of an index that tell it from any other


class Here:
    """A cache on disk as one end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def size(self, name: str) -> int | None:
        """Bytes of a file, if it is there."""
        path = self.folder / name
        return path.stat().st_size if path.is_file() else None

    def read(self, name: str, start: int, size: int) -> bytes:
        """Some bytes of a file."""
        with (self.folder / name).open("rb") as file:
            file.seek(start)
            return file.read(size)

    def checked(self, name: str, size: int, right: Callable[[bytes], bool]) -> bytes:
        """All of a file. Damaged if it is not `right`."""
        data = self.read(name, 0, size)
        if not right(data):
            raise Damaged(self.folder / name, "it does not match its checksum")
        return data

    def holds(self, name: str, entry: Entry) -> bool:
        """Whether a shard is there already, from a command that was stopped before it listed it."""
        return self.size(name) == entry.bytes and _same(self.read(name, 0, entry.bytes), entry)

    def write(self, name: str, data: bytes) -> None:
        """Write a file, complete or not at all."""
        make_folder((self.folder / name).parent)
        write_whole(self.folder / name, data)

    def writing(self, space: str) -> AbstractContextManager[None]:
        """Hold the right to write to a space."""
        make_folder(self.folder / space)
        return writing(self.folder / space)


class There:
    """A cache elsewhere as one end, with the same methods."""

    def __init__(self, remote: Remote) -> None:
        self.folder, self._remote = remote.folder, remote
        self.size = remote.sizes.get
        self.read, self.write = remote.objects.read, remote.objects.write

    def checked(self, name: str, size: int, right: Callable[[bytes], bool]) -> bytes:
        """All of an object. DptrError, naming it, if it is not `right` twice."""
        return self._remote.right(name, 0, size, right)

    def holds(self, name: str, entry: Entry) -> bool:
        """False: an object that is not listed is sent again, which takes as long as a look at it."""
        return False

    def writing(self, space: str) -> AbstractContextManager[None]:
        """There are no locks."""
        return nullcontext()


@dataclass(frozen=True)
class Part:
    """A collection: its name within a cache, and what one end has of the other's shards and what it lacks."""

    name: str
    has: list[Entry]
    lacks: list[Entry]


class Transfer:
    """All that is to go from one end to the other, which is known before anything goes."""

    def __init__(self, source: Here | There, target: Here | There, space: str | None) -> None:
        """Of all spaces, or those whose name begins with `space`.

        WrongUse if there are none, DptrError if the target has shards that the source lacks.
        """
        self.source, self.target = source, target
        self._spaces = [one.folder for one in spaces(source.folder) if one.name.startswith(space or "")]
        if not self._spaces:
            what = f"no space whose name begins with '{space}'" if space else "no encoder's space"
            raise WrongUse(f"{shown(source.folder)} holds {what}: name another cache.")
        self._folders = source.folder, target.folder
        self._parts = {one.name: [self._part(folder) for folder in _ordered(one)] for one in self._spaces}
        lacks = [entry for parts in self._parts.values() for part in parts for entry in part.lacks]
        self.shards, self.bytes = len(lacks), sum(entry.bytes for entry in lacks)
        self.there = sum(len(part.has) for parts in self._parts.values() for part in parts)

    def run(self, progress: Callable[[int], object]) -> None:
        """Do it; `progress` counts bytes of shards.

        Raises DptrError if either end fails, or if a shard does not match its checksum.
        """
        for name, parts in self._parts.items():
            with self.target.writing(name):
                for part in parts:
                    self._move(part, progress)
                    self._move_index(f"{part.name}/{INDEX}")
                    self._move_small(f"{part.name}/{SKIPPED}")
                if self.target.size(f"{name}/{SPACE}") is None:  # the last, which makes all of it visible
                    self._move_small(f"{name}/{SPACE}")

    def _part(self, folder: Path) -> Part:
        name = folder.relative_to(self.source.folder).as_posix()
        ours, theirs = ({(e.shard, e.sha256): e for e in _entries(one / name)} for one in self._folders)
        if more := theirs.keys() - ours.keys():
            raise DptrError(
                f"{shown(self.target.folder / name)} has {len(more):,} shards that {shown(folder)} lacks, and nothing "
                "is ever replaced: choose another target, or remove that folder there if it is of no more use."
            )
        has = {key: e for key, e in theirs.items() if self.target.size(f"{name}/{e.shard}") == e.bytes}
        return Part(name, list(has.values()), [e for key, e in ours.items() if key not in has])

    def _move(self, part: Part, progress: Callable[[int], object]) -> None:
        has = part.has

        def send(entry: Entry) -> None:
            name = f"{part.name}/{entry.shard}"
            if not self.target.holds(name, entry):
                self.target.write(name, self.source.checked(name, entry.bytes, lambda data: _same(data, entry)))
            progress(entry.bytes)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            for n in range(0, len(part.lacks), COMMIT):
                some = part.lacks[n : n + COMMIT]
                list(pool.map(send, some))
                has = sorted([*has, *some], key=shard_number)
                self.target.write(f"{part.name}/{MANIFEST}", manifest_bytes(has))

    def _move_index(self, name: str) -> None:
        size = self.source.size(name)
        if not size or size < SEAL:
            return
        alike = self.target.size(name) == size
        if not alike or self.source.read(name, size - SEAL, SEAL) != self.target.read(name, size - SEAL, SEAL):
            self.target.write(name, self.source.checked(name, size, is_whole))

    def _move_small(self, name: str) -> None:
        ours, theirs = (one / name for one in self._folders)
        if ours.exists() and not (theirs.exists() and theirs.read_bytes() == ours.read_bytes()):
            self.target.write(name, ours.read_bytes())


def push(cache: Path, url: Path, space: str | None) -> Transfer:
    """What a cache elsewhere lacks of one on disk. Raises as `Transfer`, and WrongUse if they are not such."""
    on_disk(cache, "the first argument of push")
    return Transfer(Here(cache), There(_remote(url)), space)


def pull(url: Path, cache: Path, space: str | None) -> Transfer:
    """What a cache on disk lacks of one elsewhere. Raises as `push`."""
    on_disk(cache, "the second argument of pull")
    return Transfer(There(_remote(url)), Here(cache), space)


def _remote(url: Path) -> Remote:
    remote = remote_of(local(url))
    if not remote:
        raise WrongUse(f"'{url}' is not a URL such as s3://bucket/cache: name where the cache is elsewhere.")
    return remote


def _entries(folder: Path) -> list[Entry]:
    entries, _, damage = read_manifest(folder)
    if damage:
        raise Damaged(folder / MANIFEST, damage[0])
    return entries


def _ordered(space_folder: Path) -> list[Path]:
    return sorted(collections(space_folder), key=lambda folder: ORDER.index(folder.relative_to(space_folder).parts[0]))


def _same(data: bytes, entry: Entry) -> bool:
    return hashlib.sha256(data).hexdigest() == entry.sha256
