"""A shard: one immutable HDF5 file of contiguous datasets, made in memory and written in one piece.

Because the image is made in memory first, HDF5 never writes to the disk itself: a full disk or a kill meets plain write
calls, and the checksums cost no second read. A shard has at most SHARD_BYTES, give or take one row, so this takes a
bounded amount of memory.

The manifest says where each dataset lies in the file, with its check. Reading goes there and not through HDF5: opening
costs nothing, rows can be mapped, and a damaged file cannot mislead a parser.
"""

import hashlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from isal.isal_zlib import crc32
from numpy.typing import NDArray

from cache.errors import Damaged, DptrError
from cache.files import write_whole

SHARD_BYTES = 64 << 20
MOST = 1024  # buffers that one call may fill
PIECE = 1 << 18  # values looked at together


@dataclass(frozen=True)
class Place:
    """Where a dataset lies in its file, and the CRC-32 of its bytes."""

    offset: int
    shape: tuple[int, ...]
    dtype: str  # as numpy writes it: "<f2"
    crc32: int


@dataclass(frozen=True)
class Entry:
    """A manifest line: one complete shard."""

    shard: str
    rows: int
    bytes: int
    sha256: str
    datasets: dict[str, Place]

    @classmethod
    def of(cls, fields: dict[str, Any]) -> "Entry":
        """From the fields of a manifest line."""
        places = {name: Place(**{**p, "shape": tuple(p["shape"])}) for name, p in fields["datasets"].items()}
        return cls(**{**fields, "datasets": places})


@dataclass(frozen=True)
class Image:
    """The bytes of a shard that is not yet on disk, and what its manifest line will say."""

    rows: int
    data: memoryview
    datasets: dict[str, Place]


def check_finite(values: NDArray[np.float16], what: str) -> None:
    """DptrError if a value is infinite or not a number: all bits of its exponent are set."""
    bits = values.reshape(-1).view(np.uint16)
    pieces = (bits[n : n + PIECE] for n in range(0, len(bits), PIECE))  # which stay in the processor's own memory
    if any((piece & 0x7FFF).max() >= 0x7C00 for piece in pieces):
        raise DptrError(
            f"{what} does not fit into float16 (it is infinite or not a number): these weights cannot be cached; "
            "embed with --precision fp32 or check the weights."
        )


def make_image(rows: int, datasets: Mapping[str, NDArray[Any]]) -> Image:
    """The arrays as contiguous datasets of one HDF5 file. Equal arrays give equal bytes."""
    import h5py  # late: reading a run takes this module along, and writes no shard

    memory = io.BytesIO()
    places = {}
    with h5py.File(memory, "w", alignment_threshold=4096, alignment_interval=4096) as file:
        for name, array in datasets.items():
            offset = file.create_dataset(name, data=array, track_times=False).id.get_offset()
            check = crc32(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data) if array.size else 0
            places[name] = Place(offset or 0, array.shape, array.dtype.str, check)
    return Image(rows, memory.getbuffer(), places)


def write_shard(path: Path, image: Image) -> Entry:
    """Write a shard, complete or not at all. Raises DptrError if the disk is full."""
    with ThreadPoolExecutor(1) as pool:  # neither hashing nor writing holds the interpreter's lock
        digest = pool.submit(hashlib.sha256, image.data)
        write_whole(path, image.data)
    return Entry(path.name, image.rows, image.data.nbytes, digest.result().hexdigest(), image.datasets)


class Shard:
    """A complete shard, open for reading."""

    def __init__(self, folder: Path, entry: Entry) -> None:
        """Damaged if the file is missing or its size is not the one in the manifest."""
        self.path, self.entry = folder / entry.shard, entry
        try:
            found = self.path.stat().st_size
        except OSError as error:
            raise Damaged(self.path, f"it cannot be read ({error.strerror})") from error
        if found != entry.bytes:
            raise Damaged(self.path, f"it has {found:,} bytes where the manifest has {entry.bytes:,}")

    def read(self, name: str, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """All of a dataset, into `out` if given. Damaged if it does not match its check."""
        place = self._place(name)
        array = np.empty(place.shape, place.dtype) if out is None else out
        if array.size and (array.shape != place.shape or array.dtype != np.dtype(place.dtype)):
            raise Damaged(self.path, f"its {name} has shape {place.shape} and not {array.shape} like those before")
        if array.size:
            self._read(name, place, array.view(np.uint8).reshape(-1).data)
        return array

    def shape(self, name: str) -> tuple[int, ...]:
        """That of a dataset."""
        return self._place(name).shape

    def _read(self, name: str, place: Place, buffer: memoryview) -> None:
        self._fill([(place.offset, buffer)])
        if crc32(buffer) != place.crc32:
            raise Damaged(self.path, f"its {name} does not match its checksum")

    def read_rows(self, name: str, starts: Sequence[int], outs: Sequence[NDArray[Any]]) -> None:
        """Fill each array (n, ...) of `outs` with rows of a dataset from its start on. Starts ascend. Unchecked."""
        offset = self._place(name).offset
        buffers = [out.view(np.uint8).reshape(-1).data for out in outs]
        self._fill([(offset + n * o[0].nbytes, b) for n, o, b in zip(starts, outs, buffers, strict=True)])

    def _fill(self, pieces: Sequence[tuple[int, memoryview]]) -> None:
        """Fill buffers from their offsets, which ascend. If the file ends too early the rest stays as it is.

        What lies between them is read too and discarded: a few large requests are faster than many small ones.
        """
        (first, _), (last, rest) = pieces[0], pieces[-1]
        gaps = [0, *(b - a - len(buffer) for (a, buffer), (b, _) in pairwise(pieces))]
        spare = memoryview(bytearray(max(gaps)))
        views = [view for gap, (_, buffer) in zip(gaps, pieces, strict=True) for view in (spare[:gap], buffer) if view]
        try:
            with self.path.open("rb", buffering=0) as file:
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), first, last + len(rest) - first, os.POSIX_FADV_WILLNEED)
                while views and (count := os.preadv(file.fileno(), views[:MOST], first)):
                    first += count
                    while views and count >= len(views[0]):
                        count -= len(views.pop(0))
                    if count:
                        views[0] = views[0][count:]
        except OSError as error:
            raise Damaged(self.path, f"it cannot be read ({error.strerror or error})") from error

    def map(self, name: str) -> NDArray[Any]:
        """A read-only memory map of a dataset, unchecked. Random rows come 13 times as fast as through HDF5."""
        place = self._place(name)
        if place.offset + prod(place.shape) * np.dtype(place.dtype).itemsize > self.entry.bytes:
            raise Damaged(self.path, f"its {name} would end beyond the file")
        try:
            return np.memmap(self.path, place.dtype, "r", place.offset, place.shape)
        except OSError as error:
            raise DptrError(f"{self.path} cannot be mapped: {error.strerror or error}.") from error

    def _place(self, name: str) -> Place:
        if name not in self.entry.datasets:
            raise Damaged(self.path, f"it has no {name}")
        return self.entry.datasets[name]


def pack_strings(name: str, strings: Sequence[str | bytes]) -> dict[str, NDArray[Any]]:
    """Strings as two datasets: `name`, their bytes end to end, UTF-8 of text, and `name_offsets` (n + 1,), int64."""
    encoded = [s.encode() if isinstance(s, str) else s for s in strings]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(e) for e in encoded], out=offsets[1:])
    return {name: np.frombuffer(b"".join(encoded), np.uint8), f"{name}_offsets": offsets}


def unpack_strings(shard: Shard, name: str) -> list[str]:
    """Inverse of `pack_strings`."""
    return [text.decode() for text in unpack_bytes(shard.read, name)]


def unpack_bytes(dataset: Callable[[str], NDArray[Any]], name: str) -> list[bytes]:
    """The same, still encoded, from whatever holds the two datasets."""
    data, offsets = dataset(name).tobytes(), dataset(f"{name}_offsets").tolist()
    return [data[a:b] for a, b in pairwise(offsets)]
