"""The manifest of a collection: the only truth about which shards exist.

manifest.jsonl has one line per shard, in order of their numbers:
    {"shard": "00000.h5", "rows": 8192, "bytes": 60123456, "sha256": "...",
     "datasets": {"keys": {"offset": 4096, "shape": [8192, 16], "dtype": "|u1", "crc32": 1234}, ...}, "crc32": 5678}
A shard gets its line once its bytes are on disk, so a file without a line was never finished, and its name is used
again. A line without its newline was never finished either: readers skip it, and the next writer cuts it off.

Shards that are to take the place of a collection's are numbered from the next multiple of RANGE, so that both lie in
one folder until the manifest changes. Those that take long to make are listed in STAGED until then.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cache.errors import DptrError
from cache.files import cannot_write, sync_folder, write_all, write_whole
from cache.seal import seal, unseal
from cache.shard import Entry

MANIFEST = "manifest.jsonl"
STAGED = "staged.jsonl.tmp"  # like all temporary files, `cache gc` removes it
RANGE = 100_000  # shards have 64 MB, so this is more than there are
_SHARD = re.compile(r"\d{5,}\.h5")


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"{number:05d}.h5"


def shard_number(entry: Entry) -> int:
    """Inverse of `shard_name`. ValueError for any other name."""
    return int(entry.shard.removesuffix(".h5"))


def first_number(entries: Sequence[Entry]) -> int:
    """The number that the first of a collection's shards has, unless it was dropped."""
    return shard_number(entries[0]) // RANGE * RANGE if entries else 0


def read_manifest(folder: Path, name: str = MANIFEST) -> tuple[list[Entry], int, list[str]]:
    """The entries of a manifest, the byte at which its last complete line ends, and what is damaged in it.

    Damaged lines are left out of the entries. A manifest that does not exist is empty. DptrError if it cannot be read.
    """
    path = folder / name
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
            if entry.shard != shard_name(shard_number(entry)) or shard_number(entry) <= _last(entries):
                raise ValueError(f"{entry.shard} is out of order")
            entries.append(entry)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            damage.append(f"line {number} is not a line of a manifest ({error})")
    if _is_whole(unfinished):
        damage.append("its last line has no end")
    return entries, len(data) - len(unfinished), damage


def write_manifest(folder: Path, entries: Sequence[Entry]) -> int:
    """Make these the shards that exist, in order of their numbers; returns where the manifest ends."""
    text = manifest_bytes(entries)
    write_whole(folder / MANIFEST, text)
    return len(text)


def manifest_bytes(entries: Sequence[Entry]) -> bytes:
    """What a manifest of these shards holds."""
    return "".join(map(_line, entries)).encode()


def append_line(path: Path, end: int, entry: Entry) -> int:
    """Write a line to the manifest `path` at `end`, where the last one ends; returns where the new one ends."""
    data = _line(entry).encode()
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
        if not end:  # the file may be new
            sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    return end + len(data)


def unlisted(folder: Path) -> list[Path]:
    """Files that a writer left unfinished or dropped: temporary ones, then shards that no line names."""
    listed = {e.shard for e in read_manifest(folder)[0]}
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    shards = [p for p in found if _SHARD.fullmatch(p.name) and p.name not in listed]
    return [p for p in found if p.name.endswith(".tmp")] + shards


def _last(entries: Sequence[Entry]) -> int:
    return shard_number(entries[-1]) if entries else -1


def _line(entry: Entry) -> str:
    return seal(asdict(entry)) + "\n"


def _is_whole(line: bytes) -> bool:
    """Whether bytes without a newline are a line whose newline was damaged, and not a line still being written."""
    try:
        _, end = json.JSONDecoder().raw_decode(line.decode(errors="replace"))
    except ValueError:
        return False
    return end < len(line)
