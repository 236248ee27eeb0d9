"""Keeps what is computed of a shard before it is committed, so that a run that is stopped loses half a minute at most.

A shard's results lie in a temporary file beside the shards, batch by batch, each under a name that says what it was
computed from. The same command takes them from there and goes on with the batches that are missing, so the shard gets
the same bytes. A shard that takes less than half a minute never has such a file, and one that is committed has it no
more. The file is only ever extra: if it cannot be written or read, its batches are computed again.
"""

import os
import struct
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from isal.isal_zlib import crc32
from numpy.typing import NDArray

from cache.errors import DptrError
from cache.files import delete, make_folder, write_all

EVERY = 30.0  # seconds between writes
HEAD = struct.Struct("<16s3II")  # name of a batch, shape of its result, CRC-32 of the bytes that follow
ENDING = ".part.tmp"  # temporary files are not part of a cache: `cache gc` removes them
T = TypeVar("T")
X = TypeVar("X")


class Unfinished:
    """The results of shards that a collection is to get, in the order in which they are computed."""

    def __init__(self, folder: Path, batches: int | None = None) -> None:
        """`batches` make a shard. None: each call of `through` makes one."""
        self._folder, self._batches = folder, batches
        self._file = _File(None)

    def through(
        self,
        compute: Callable[[Iterator[tuple[T, X]]], Iterable[tuple[T, Any]]],
        batches: Iterable[tuple[T, X]],
        name: Callable[[T], bytes],
    ) -> Generator[tuple[T, NDArray[np.float16]], None, None]:
        """(label, result) of each batch (label, input), in order: kept results first, then what `compute` makes.

        Results are float16 of three dimensions. `name` gives 16 bytes that stand for all that decides a result.
        """
        number, coming = 0, iter(batches)
        try:
            for label, given in coming:
                self._open(number, name(label))
                kept = self._file.take(name(label))
                if kept is None:
                    coming = chain([(label, given)], coming)
                    break
                yield label, kept
                number += 1
            for n, (label, result) in enumerate(compute(coming), number):
                if n > number:
                    self._open(n, name(label))
                self._file.keep(name(label), np.asarray(result))
                yield label, np.asarray(result)
        except BaseException:  # Ctrl-C, a full disk, or a caller that has had enough
            self._file.write()
            raise
        self._file.end()

    def committed(self) -> Callable[[], None]:
        """What to call once the shard whose last result `through` gave is committed."""
        return self._file.delete

    def forget(self) -> None:
        """Remove what is left over from other words or pictures. DptrError if the system refuses."""
        for path in self._folder.glob(f"*{ENDING}"):
            delete(path)

    def _open(self, number: int, name: bytes) -> None:
        """Go on to the next shard's file, if a shard begins with this batch."""
        if number % self._batches == 0 if self._batches else number == 0:
            self._file.end()
            self._file = _File(self._folder / (name.hex() + ENDING))


class _File:
    """The file of one shard, called after its first batch."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._data = memoryview(b"")  # what an earlier run has left and is not taken yet
        self._end = 0  # bytes of the file that hold
        self._new: list[bytes | memoryview] = []
        self._written = time.monotonic()
        self._whole = path is not None  # whether every batch so far is there or in `_new`
        with suppress(OSError):
            self._data = memoryview(path.read_bytes()) if path else self._data

    def take(self, name: bytes) -> NDArray[np.float16] | None:
        """The next result, if it is there whole and of this batch."""
        rest = self._data[self._end :]
        if self._new or len(rest) < HEAD.size:
            return None
        found, *shape, crc = HEAD.unpack(rest[: HEAD.size])
        body = rest[HEAD.size : HEAD.size + 2 * int(np.prod(shape))]
        if found != name or len(body) != 2 * int(np.prod(shape)) or crc32(body) != crc:
            return None
        self._end += HEAD.size + len(body)
        return np.frombuffer(body, np.float16).reshape(shape)

    def keep(self, name: bytes, result: NDArray[np.float16]) -> None:
        """Take up a result, and write all that came since EVERY seconds ago."""
        self._data = memoryview(b"")
        body = np.ascontiguousarray(result).reshape(-1).view(np.uint8).data
        self._new += [HEAD.pack(name, *result.shape, crc32(body)), body]
        if time.monotonic() - self._written >= EVERY:
            self.write()

    def write(self) -> None:
        """Add what is new to the file. What cannot be written is left out, and so is all after it."""
        if not self._new or not self._whole or self.path is None:
            return
        try:
            make_folder(self.path.parent)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.ftruncate(descriptor, self._end)
                os.lseek(descriptor, self._end, os.SEEK_SET)
                for part in self._new:
                    write_all(descriptor, part)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self._end += sum(map(len, self._new))
        except (OSError, DptrError):
            self._whole = False
        self._new, self._written = [], time.monotonic()

    def end(self) -> None:
        """The shard is computed: complete the file, if there is one, until the shard is committed."""
        if self._end:
            self.write()
        self._new = []

    def delete(self) -> None:
        """The shard is committed."""
        if self.path and (self._end or not self._whole):
            delete(self.path)
