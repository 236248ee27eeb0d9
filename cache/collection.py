"""A collection: a folder of shards of one kind, and its manifest.

Every shard holds the fingerprint of the space it was made for, so it cannot be mistaken for another encoder's.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import Damaged, DptrError
from cache.files import delete, make_folder
from cache.fingerprint import Fingerprint
from cache.manifest import (
    MANIFEST,
    append_line,
    read_manifest,
    shard_name,
    shard_number,
    unlisted,
    write_manifest,
)
from cache.shard import Entry, Image, Shard, make_image, write_shard


class Collection:
    """Shards of one kind in one folder. Reading needs no lock; writing needs the space's."""

    def __init__(self, folder: Path, fingerprint: Fingerprint) -> None:
        """Damaged if the manifest is. DptrError, naming the fields, if another encoder made a shard."""
        self.folder, self.fingerprint = folder, fingerprint
        self.entries, self._end, damage = read_manifest(folder)
        if damage:
            raise Damaged(folder / MANIFEST, damage[0])
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
        number = next((n for n, e in enumerate(self.entries) if shard_number(e) != n), len(self.entries))
        entry = write_shard(self.folder / shard_name(number), image)
        if number == len(self.entries):
            self._end = append_line(self.folder, self._end, entry)
        else:  # this is a shard that was dropped, made again
            self._end = write_manifest(self.folder, [*self.entries[:number], entry, *self.entries[number:]])
        self.entries.insert(number, entry)

    def replace(self, kept: Sequence[Entry], more: Iterable[Image]) -> None:
        """Drop all shards except `kept` and append `more`. Readers see this as one step."""
        first = shard_number(self.entries[-1]) + 1 if self.entries else 0
        added = [write_shard(self.folder / shard_name(number), image) for number, image in enumerate(more, first)]
        self._end = write_manifest(self.folder, [*kept, *added])
        self.entries = [*kept, *added]
        for path in unlisted(self.folder):
            delete(path)

    def shards(self) -> Iterator[Shard]:
        """Every shard in order. DptrError if `cache gc` or a repair removes one meanwhile."""
        try:
            for entry in self.entries:
                yield Shard(self.folder, entry)
        except Damaged:
            self._check_unchanged()
            raise
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        now = {(e.shard, e.sha256) for e in read_manifest(self.folder)[0]}
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
    shard = Shard(folder, entry)
    try:
        other = Fingerprint.from_json(shard.read("fingerprint").tobytes())
    except (ValueError, TypeError) as error:
        raise Damaged(shard.path, f"its fingerprint cannot be read ({error})") from error
    if other.digest != fingerprint.digest:
        raise DptrError(
            f"{shard.path} was made by another encoder than its space, and features of two encoders never mix. "
            f"The encoders differ (space / shard) in {'; '.join(fingerprint.differences(other))}. "
            "Move the shard back to the space it came from."
        )
