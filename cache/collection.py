"""A collection: a folder of shards of one kind, and its manifest.

Every shard holds the fingerprint of the space it was made for, so it cannot be mistaken for another encoder's.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cache.errors import Damaged, DptrError
from cache.files import cannot_write, delete, link, make_folder, sync_folder
from cache.fingerprint import Fingerprint
from cache.manifest import (
    MANIFEST,
    RANGE,
    STAGED,
    append_line,
    first_number,
    read_manifest,
    shard_name,
    shard_number,
    unlisted,
    write_manifest,
)
from cache.objects import TOGETHER
from cache.remote import open_shard, remote_of, shown
from cache.shard import Entry, Image, Shard, make_image, write_shard


class Collection:
    """Shards of one kind in one folder. Reading needs no lock; writing needs the space's."""

    def __init__(self, folder: Path, fingerprint: Fingerprint, manifest: str = MANIFEST) -> None:
        """Damaged if the manifest is. DptrError, naming the fields, if another encoder made a shard."""
        self.folder, self.fingerprint, self._manifest = folder, fingerprint, folder / manifest
        self.entries, self._end, damage = read_manifest(folder, manifest)
        if damage:
            raise Damaged(self._manifest, damage[0])
        for entry in self.entries:
            check_origin(folder, entry, fingerprint)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def rows(self) -> int:
        return sum(e.rows for e in self.entries)

    @property
    def bytes(self) -> int:
        return sum(e.bytes for e in self.entries)

    def image(self, rows: int, datasets: Mapping[str, NDArray[Any]]) -> Image:
        """A shard of this collection, ready to be committed."""
        origin = np.frombuffer(self.fingerprint.to_json(), np.uint8)
        return make_image(rows, {**datasets, "fingerprint": origin})

    def commit(self, image: Image) -> None:
        """Add a shard under the lowest free number. DptrError if it cannot be written; nothing has changed then."""
        make_folder(self.folder)
        self._list(write_shard(self.folder / shard_name(self._free_number()), image))

    def adopt(self, path: Path, entry: Entry) -> None:
        """As `commit`, of a shard that another process has written whole to `path`; `entry` is its line, but for the
        name. DptrError, naming the fields, if it was made for another encoder; Damaged if it has another size.
        """
        check_origin(path.parent, replace(entry, shard=path.name), self.fingerprint)
        Shard(path.parent, replace(entry, shard=path.name))
        make_folder(self.folder)
        to = self.folder / shard_name(self._free_number())
        link(path, to)
        try:
            sync_folder(self.folder)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        self._list(replace(entry, shard=to.name))

    def _free_number(self) -> int:
        first = self._first_number()
        return next((n for n, e in enumerate(self.entries, first) if shard_number(e) != n), first + len(self.entries))

    def _list(self, entry: Entry) -> None:
        """Give a shard its line in the manifest."""
        place = shard_number(entry) - self._first_number()
        if place == len(self.entries):
            self._end = append_line(self._manifest, self._end, entry)
        else:  # this is a shard that was dropped, made again
            self._end = write_manifest(self.folder, [*self.entries[:place], entry, *self.entries[place:]])
        self.entries.insert(place, entry)

    def replace(self, kept: Sequence[Entry], more: Iterable[Image]) -> None:
        """Drop all shards except `kept` and append `more`. Readers see this as one step."""
        first = shard_number(self.entries[-1]) + 1 if self.entries else 0
        added = [write_shard(self.folder / shard_name(number), image) for number, image in enumerate(more, first)]
        self._end = write_manifest(self.folder, [*kept, *added])
        self.entries = [*kept, *added]
        for path in unlisted(self.folder):
            delete(path)

    def staged(self, usable: Callable[[Self], bool]) -> Self:
        """Shards in the same folder that are to become this collection's, and that no reader sees yet.

        Those that are there were left by a command that was stopped; all are forgotten if one is damaged, or if they
        are not `usable`.
        """
        with suppress(DptrError):
            found = type(self)(self.folder, self.fingerprint, STAGED)
            for shard in found.shards():
                shard.read("keys")
            if usable(found):
                return found
        delete(self.folder / STAGED)
        return type(self)(self.folder, self.fingerprint, STAGED)

    def become(self, parts: Iterable[Image | Entry]) -> None:
        """Make these its shards, in one step for readers: new ones, or entries of those that its folder has already."""
        self.switch(self.prepared(parts))

    def prepared(self, parts: Iterable[Image | Entry]) -> list[Entry]:
        """As `become`, but for the last step: that is `switch`."""
        make_folder(self.folder)
        made, first = list[Entry](), 0 if not self.entries or self._first_number() else RANGE
        for number, part in enumerate(parts, first):
            path = self.folder / shard_name(number)
            if isinstance(part, Entry):
                link(self.folder / part.shard, path)
                made.append(replace(part, shard=path.name))
            else:
                made.append(write_shard(path, part))
        try:
            sync_folder(self.folder)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        return made

    def switch(self, made: list[Entry]) -> None:
        """Make the shards that were `prepared` the collection's, and delete all others."""
        if [e.sha256 for e in made] != [e.sha256 for e in self.entries]:
            self._end = write_manifest(self.folder, made)
            self.entries = made
        for path in unlisted(self.folder):
            delete(path)

    def _first_number(self) -> int:
        return 2 * RANGE if self._manifest.name == STAGED else first_number(self.entries)

    def shards(self) -> Iterator[Shard]:
        """Every shard in order. DptrError if `cache gc` or a repair removes one meanwhile."""
        try:
            for entry in self.entries:
                yield open_shard(self.folder, entry)
        except Damaged:
            self._check_unchanged()
            raise
        self._check_unchanged()

    def columns(self, *names: str) -> Iterator[list[NDArray[Any]]]:
        """These datasets, small ones, of every shard in order; of a cache elsewhere, of many shards at a time."""

        def read(shard: Shard) -> list[NDArray[Any]]:
            return [shard.read(name) for name in names]

        if not remote_of(self.folder):
            yield from map(read, self.shards())
            return
        with ThreadPoolExecutor(TOGETHER) as pool:
            yield from pool.map(read, self.shards())

    def _check_unchanged(self) -> None:
        now = {(e.shard, e.sha256) for e in read_manifest(self.folder, self._manifest.name)[0]}
        if not {(e.shard, e.sha256) for e in self.entries} <= now:
            raise DptrError(
                f"{self.folder} was cleaned or repaired by another process while it was being read: run the command "
                "again."
            )


def check_origin(folder: Path, entry: Entry, fingerprint: Fingerprint) -> None:
    """DptrError, naming the fields that differ with both values, if a shard was made for another encoder."""
    place = entry.datasets.get("fingerprint")
    if place and place.crc32 == zlib.crc32(fingerprint.to_json()):
        return
    shard = open_shard(folder, entry)
    try:
        other = Fingerprint.from_json(shard.read("fingerprint").tobytes())
    except (ValueError, TypeError) as error:
        raise Damaged(shard.path, f"its fingerprint cannot be read ({error})") from error
    if other.digest != fingerprint.digest:
        raise DptrError(
            f"{shown(shard.path)} was made by another encoder than its space, and features of two encoders never mix. "
            f"The encoders differ (space / shard) in {'; '.join(fingerprint.differences(other))}. "
            "Move the shard back to the space it came from."
        )
