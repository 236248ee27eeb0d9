"""The manifest of a collection: the only truth of which shards exist.

manifest.jsonl has one line a shard, in the order of their numbers:
    {"shard": "00000.h5", "rows": 8192, "bytes": 60123456, "sha256": "...",
     "datasets": {"keys": {"offset": 4096, "shape": [8192, 16], "dtype": "|u1", "crc32": 1234}, ...}, "crc32": 5678}
A shard gets its line after its bytes are on the disk, so a file without a line was never finished and its name is
used again. A line without its newline was never finished either: readers pass it over and the next writer cuts it off.
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
_SHARD = re.compile(r"\d{5,}\.h5")


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"{number:05d}.h5"


def shard_number(entry: Entry) -> int:
    """Inverse of `shard_name`. ValueError if it is no such name."""
    return int(entry.shard.removesuffix(".h5"))


def read_manifest(folder: Path) -> tuple[list[Entry], int, list[str]]:
    """The entries of a manifest, where its last whole line ends, and what is damaged in it (the bad lines left out).

    DptrError if the file cannot be read; a manifest that is not there is empty.
    """
    path = folder / MANIFEST
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
            damage.append(f"line {number} is no line of a manifest ({error})")
    if _is_whole(unfinished):
        damage.append("its last line does not end")
    return entries, len(data) - len(unfinished), damage


def write_manifest(folder: Path, entries: Sequence[Entry]) -> int:
    """Make these, in the order of their numbers, the shards that exist; where the manifest ends then."""
    text = "".join(map(_line, entries)).encode()
    write_whole(folder / MANIFEST, text)
    return len(text)


def append_line(folder: Path, end: int, entry: Entry) -> int:
    """Write a line where the last whole one ends, and say where it ends."""
    path, data = folder / MANIFEST, _line(entry).encode()
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
            sync_folder(folder)
    except OSError as error:
        raise cannot_write(path, error) from error
    return end + len(data)


def unlisted(folder: Path) -> list[Path]:
    """Files that a writer left unfinished or let go: temporary ones, and shards that no line names."""
    listed = {e.shard for e in read_manifest(folder)[0]}
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [p for p in found if p.name.endswith(".tmp") or (_SHARD.fullmatch(p.name) and p.name not in listed)]


def _last(entries: Sequence[Entry]) -> int:
    return shard_number(entries[-1]) if entries else -1


def _line(entry: Entry) -> str:
    return seal(asdict(entry)) + "\n"


def _is_whole(line: bytes) -> bool:
    """Whether bytes without a newline are a line whose newline is another character now, and no line being written."""
    try:
        _, end = json.JSONDecoder().raw_decode(line.decode(errors="replace"))
    except ValueError:
        return False
    return end < len(line)
