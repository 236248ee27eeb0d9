"""Whether a cache has changed since it was written: `dptr cache verify [--repair]`.

Every byte of every shard is compared with its checksum, several shards at a time. A repair removes what is damaged from
the manifest and the disk, so that the embed command can make it again.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cache.bank import SKIPPED, Bank
from cache.collection import check_origin
from cache.corpus import Corpus
from cache.errors import Damaged, DptrError, WrongUse
from cache.files import delete, write_whole
from cache.fingerprint import Fingerprint
from cache.index_file import INDEX
from cache.lock import writing
from cache.manifest import MANIFEST, read_manifest, unlisted, write_manifest
from cache.memories import Memories
from cache.shard import Entry, Shard
from cache.space import SPACE, Space, collections

AGAIN = {"banks": "embed-images", "crops": "finetune --freeze", "neighbours": "neighbours"}  # else embed-text


@dataclass(frozen=True)
class Problem:
    """Something that has changed: which file, what is wrong, and what a repair does about it."""

    path: str  # within the cache
    what: str
    remedy: str


@dataclass
class Verification:
    """What was checked and what was found."""

    shards: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)  # files that were never finished, or whose line was lost
    repaired: int = 0  # of the problems

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def verify(cache: Path, space: str | None, repair: bool, progress: Callable[[int], object]) -> Verification:
    """Read everything in a cache, or in the spaces whose name begins with `space`; `progress` counts bytes read.

    Raises WrongUse if there is no such space, DptrError for a space of another format, or if another process is
    writing during a repair.
    """
    found = Verification()
    folders = _space_folders(cache, space)
    if not folders:
        what = f"no space whose name begins with {space!r}" if space else "no encoder's space"
        raise WrongUse(f"{cache} holds {what}: name another --cache.")
    for folder in folders:
        with writing(folder) if repair else nullcontext():
            _Check(cache, folder, repair, progress, found).run()
    return found


def bytes_listed(cache: Path, space: str | None) -> int:
    """The number of bytes `verify` will read."""
    listed = (read_manifest(folder)[0] for s in _space_folders(cache, space) for folder in collections(s))
    return sum(entry.bytes for entries in listed for entry in entries)


@dataclass
class _Check:
    cache: Path
    folder: Path
    repair: bool
    progress: Callable[[int], object]
    found: Verification

    def run(self) -> None:
        """Check one space, from its fingerprint to its last label."""
        fingerprint = self._fingerprint()
        if fingerprint is None:
            return
        for folder in collections(self.folder):
            self._shards(folder, fingerprint)
        memories = None  # opened once for all corpora, with its table of keys
        for folder in collections(self.folder):
            try:
                if folder.parent.name in ("banks", "crops"):
                    self._bank(Bank(folder, fingerprint))
                elif folder.parent.name == "corpora":
                    memories = memories or Memories(self.folder / "memories", fingerprint)
                    self._references(Corpus(folder, fingerprint), memories)
            except DptrError:
                pass  # already reported above

    def _fingerprint(self) -> Fingerprint | None:
        """The space's fingerprint; if space.json is damaged, from a shard, since every shard holds it."""
        try:
            return Space(self.folder).fingerprint
        except (Damaged, WrongUse) as error:  # another format is neither, and is an error of its own
            inside = next(self._fingerprints_in_shards(), None)
            remedy = "restored from a shard" if inside else "no shard holds a copy: delete the space"
            self._problem(self.folder / SPACE, str(error), remedy, inside is not None)
            if inside and self.repair:
                write_whole(self.folder / SPACE, inside.to_json())
            return inside

    def _fingerprints_in_shards(self) -> Iterator[Fingerprint]:
        for manifest in sorted(self.folder.rglob(MANIFEST)):
            for entry in read_manifest(manifest.parent)[0]:
                try:
                    inside = Fingerprint.from_json(Shard(manifest.parent, entry).read("fingerprint").tobytes())
                except (DptrError, ValueError, TypeError):
                    continue
                if self.folder.name.endswith(inside.digest[:8]):
                    yield inside

    def _shards(self, folder: Path, fingerprint: Fingerprint) -> None:
        entries, _, damage = read_manifest(folder)
        again = AGAIN.get(folder.parent.name, "embed-text")
        for what in damage:
            self._problem(folder / MANIFEST, what, f"removed; {again} makes again what it named", True)
        bad = []
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for entry, wrong in zip(entries, pool.map(lambda e: _damage(folder, e), entries), strict=True):
                self.found.shards += 1
                self.found.bytes += entry.bytes
                self.progress(entry.bytes)
                if wrong and entry in read_manifest(folder)[0]:  # and not removed meanwhile
                    bad.append(entry)
                    self._problem(folder / entry.shard, wrong, f"dropped; {again} makes it again", True)
        self.found.unlisted += [p.relative_to(self.cache).as_posix() for p in unlisted(folder)]
        for entry in entries:
            self._origin(folder, entry, fingerprint)
        if self.repair and (bad or damage):
            if folder.parent.name == "banks":
                delete(folder / INDEX)  # it covers pictures that are gone
            write_manifest(folder, [e for e in entries if e not in bad])
            for entry in bad:
                delete(folder / entry.shard)

    def _origin(self, folder: Path, entry: Entry, fingerprint: Fingerprint) -> None:
        try:
            check_origin(folder, entry, fingerprint)
        except Damaged:
            pass  # already reported with its bytes
        except DptrError as error:
            self._problem(folder / entry.shard, str(error), "move it back to its space", False)

    def _bank(self, bank: Bank) -> None:
        for name, use in ((INDEX, bank.index), (SKIPPED, bank.skipped)):
            try:
                use()
            except Damaged as error:
                self._problem(error.path, error.why, "removed; embed-images makes it again", True)
                if self.repair:
                    delete(bank.folder / name)

    def _references(self, corpus: Corpus, memories: Memories) -> None:
        missing = int((memories.find(corpus.keys()) < 0).sum())
        if missing:
            what = f"{missing:,} of its {corpus.rows:,} labels have no memory"
            self._problem(corpus.folder, what, "run embed-text again: it makes them", False)

    def _problem(self, path: Path, what: str, remedy: str, repairable: bool) -> None:
        self.found.problems.append(Problem(path.relative_to(self.cache).as_posix(), what, remedy))
        self.found.repaired += self.repair and repairable


def _space_folders(cache: Path, space: str | None) -> list[Path]:
    """Folders that are spaces, even if space.json is gone."""
    found = sorted(p for p in cache.iterdir() if p.name.startswith(space or "")) if cache.is_dir() else []
    return [p for p in found if (p / SPACE).exists() or (p / "constants" / MANIFEST).exists()]


def _damage(folder: Path, entry: Entry) -> str:
    """What is wrong with a shard's bytes; empty if nothing is."""
    try:
        shard = Shard(folder, entry)
        with shard.path.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
        return "" if same else "it does not match its checksum"
    except Damaged as error:
        return error.why
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"
