"""A collection: a folder of shards and its manifest, the only truth of which shards exist.

manifest.jsonl has one line a shard, in the order of their numbers:
    {"shard": "00000.h5", "rows": 8192, "bytes": 60123456, "sha256": "...",
     "datasets": {"keys": {"offset": 4096, "shape": [8192, 16], "dtype": "|u1", "crc32": 1234}, ...}, "crc32": 5678}
A shard gets its line after its bytes are on the disk, so a file without a line was never finished and its name is
used again. A line without its newline was never finished either: readers pass it over and the next writer cuts it off.
Every shard holds the fingerprint of the space it was made for, so it cannot pass for one of another encoder.
"""

import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import Damaged, DptrError
from cache.files import cannot_write, delete, make_folder, sync_folder, write_all, write_whole
from cache.fingerprint import Fingerprint
from cache.seal import seal, unseal
from cache.shard import Entry, Shard, write_shard

MANIFEST = "manifest.jsonl"
_SHARD = re.compile(r"\d{5,}\.h5")


class Collection:
    """Shards of one kind in one folder; reading needs no lock, writing needs the space's."""

    def __init__(self, folder: Path, fingerprint: Fingerprint) -> None:
        """Damaged if the manifest is; DptrError, naming the fields, if a shard was made by another encoder."""
        self.folder, self.fingerprint, self._origin = folder, fingerprint, fingerprint.to_json()
        self.entries, self._end, damage = read_manifest(folder / MANIFEST)
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

    def append(self, rows: int, datasets: Mapping[str, NDArray[Any]]) -> None:
        """Commit one more shard under the lowest free number; DptrError, and all as it was, if it cannot be written."""
        make_folder(self.folder)
        origin = np.frombuffer(self._origin, np.uint8)
        number = next((n for n, e in enumerate(self.entries) if e.shard != _name(n)), len(self.entries))
        entry = write_shard(self.folder / _name(number), rows, {**datasets, "fingerprint": origin})
        if number == len(self.entries):
            self._end = _append_line(self.folder / MANIFEST, self._end, _line(entry))
            self.entries.append(entry)
        else:  # a shard between was dropped, and this is it again
            self.entries.insert(number, entry)
            self._end = write_manifest(self.folder, self.entries)

    def replace(self, kept: Sequence[Entry], more: Iterable[tuple[int, Mapping[str, NDArray[Any]]]]) -> None:
        """Let all shards go but those kept, and put more (rows, datasets) behind; in one step, as readers see it."""
        origin = np.frombuffer(self._origin, np.uint8)
        first = _number(self.entries[-1]) + 1 if self.entries else 0
        added = [
            write_shard(self.folder / _name(number), rows, {**datasets, "fingerprint": origin})
            for number, (rows, datasets) in enumerate(more, first)
        ]
        self.entries = [*kept, *added]
        self._end = write_manifest(self.folder, self.entries)
        for path in unlisted(self.folder):
            delete(path)

    def shards(self) -> Iterator[Shard]:
        """Every shard in order. DptrError if one was removed meanwhile by `cache gc` or a repair."""
        try:
            for entry in self.entries:
                yield Shard(self.folder, entry)
        except Damaged:
            self._check_unchanged()
            raise
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        now = {(e.shard, e.sha256) for e in read_manifest(self.folder / MANIFEST)[0]}
        if not {(e.shard, e.sha256) for e in self.entries} <= now:
            raise DptrError(
                f"{self.folder} was cleaned or repaired by another process while it was read: run the command again."
            )


def read_manifest(path: Path) -> tuple[list[Entry], int, list[str]]:
    """The entries of a manifest, where its last whole line ends, and what is damaged in it (the bad lines left out)."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], 0, []
    except OSError as error:
        raise DptrError(f"{path} cannot be read: {error.strerror or error}.") from error
    *lines, unfinished = data.split(b"\n")
    entries: list[Entry] = []
    damage = []
    for number, line in enumerate(lines, 1):
        try:
            entry = Entry.of(unseal(line))
            if entry.shard != _name(_number(entry)) or (entries and _number(entry) <= _number(entries[-1])):
                raise ValueError(f"{entry.shard} is out of order")
            entries.append(entry)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            damage.append(f"line {number} is no line of a manifest ({error})")
    if _is_whole(unfinished):
        damage.append("its last line does not end")
    return entries, len(data) - len(unfinished), damage


def write_manifest(folder: Path, entries: Sequence[Entry]) -> int:
    """Make these the shards that exist, in the order of their numbers; where the manifest ends."""
    text = "".join(map(_line, entries)).encode()
    write_whole(folder / MANIFEST, text)
    return len(text)


def unlisted(folder: Path) -> list[Path]:
    """Files that a writer left unfinished or let go: temporary ones, and shards that no manifest line names."""
    listed = {e.shard for e in read_manifest(folder / MANIFEST)[0]}
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [p for p in found if p.name.endswith(".tmp") or (_SHARD.fullmatch(p.name) and p.name not in listed)]


def check_origin(folder: Path, entry: Entry, fingerprint: Fingerprint) -> None:
    """DptrError, naming the differing fields with both values, if a shard was made for another encoder."""
    place = entry.datasets.get("fingerprint")
    if place and place.crc32 == zlib.crc32(fingerprint.to_json()):
        return
    shard = Shard(folder, entry)
    try:
        other = Fingerprint.from_json(shard.read("fingerprint").tobytes())
    except (ValueError, TypeError) as error:
        raise Damaged(shard.path, f"its fingerprint is none ({error})") from error
    if other.digest != fingerprint.digest:
        raise DptrError(
            f"{shard.path} was made by another encoder than its space, and features of two encoders never meet. "
            f"They differ (the space's / the shard's) in {'; '.join(fingerprint.differences(other))}. "
            "Move it back to the space it came from."
        )


def _is_whole(line: bytes) -> bool:
    """Whether bytes without a newline are a line whose newline is another character now, and no line being written."""
    try:
        _, end = json.JSONDecoder().raw_decode(line.decode(errors="replace"))
    except ValueError:
        return False
    return end < len(line)


def _name(number: int) -> str:
    return f"{number:05d}.h5"


def _number(entry: Entry) -> int:
    return int(entry.shard.removesuffix(".h5"))


def _line(entry: Entry) -> str:
    return seal(asdict(entry)) + "\n"


def _append_line(path: Path, end: int, line: str) -> int:
    """Write a line where the last whole one ends, and say where it ends."""
    data = line.encode()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            os.ftruncate(descriptor, end)
            os.lseek(descriptor, end, os.SEEK_SET)
            try:
                write_all(descriptor, data)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, end)
                raise
        finally:
            os.close(descriptor)
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    return end + len(data)
