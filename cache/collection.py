"""A collection: a folder of shards and its manifest, the only truth of which shards exist.

manifest.jsonl has one line a shard, in the order of their making:
    {"shard": "00000.h5", "rows": 8192, "bytes": 60123456, "sha256": "..."}
A shard gets its line after its bytes are on the disk, so a file without a line was never finished and its name is
used again. A line without its newline was never finished either: readers pass it over and the next writer cuts it off.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from cache.errors import DptrError
from cache.files import cannot_write, make_folder, sync_folder, write_all
from cache.shard import open_shard, write_shard


@dataclass(frozen=True)
class Entry:
    """A manifest line: one complete shard."""

    shard: str
    rows: int
    bytes: int
    sha256: str


class Collection:
    """Shards of one kind in one folder; reading needs no lock, appending needs the space's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries = _read_manifest(folder / "manifest.jsonl")

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def rows(self) -> int:
        return sum(e.rows for e in self.entries)

    @property
    def bytes(self) -> int:
        return sum(e.bytes for e in self.entries)

    def append(self, rows: int, datasets: Mapping[str, NDArray[Any]]) -> None:
        """Commit one more shard; DptrError, and the collection as it was, if it cannot be written."""
        make_folder(self.folder)
        shard = f"{len(self.entries):05d}.h5"
        entry = Entry(shard, rows, *write_shard(self.folder / shard, datasets))
        _append_line(self.folder / "manifest.jsonl", json.dumps(asdict(entry)))
        self.entries.append(entry)

    def shards(self) -> Iterator[h5py.File]:
        """Every shard in order, each open while it is looked at."""
        for entry in self.entries:
            with open_shard(self.folder / entry.shard, entry.bytes) as file:
                yield file


def _read_manifest(path: Path) -> list[Entry]:
    if not path.exists():
        return []
    *lines, _unfinished = path.read_bytes().split(b"\n")
    try:
        return [Entry(**json.loads(line)) for line in lines]
    except (ValueError, TypeError) as error:
        raise DptrError(f"{path} is damaged ({error}): restore it from a copy, or delete its folder.") from error


def _append_line(path: Path, line: str) -> None:
    before = None
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            before = os.pread(descriptor, os.fstat(descriptor).st_size, 0).rfind(b"\n") + 1
            os.ftruncate(descriptor, before)
            os.lseek(descriptor, before, os.SEEK_SET)
            try:
                write_all(descriptor, (line + "\n").encode())
            except OSError:
                os.ftruncate(descriptor, before)
                raise
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
