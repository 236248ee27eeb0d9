"""A shard: one immutable HDF5 file of contiguous datasets, made in memory and written in one piece.

Making the file's image in memory first means that HDF5 itself never writes to the disk: a full disk or a kill meets
plain write calls, and the checksum costs no second read. A shard is at most about SHARD_BYTES large, so this costs a
bounded amount of memory.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.errors import DptrError
from cache.files import write_whole

SHARD_BYTES = 64 << 20


def write_shard(path: Path, datasets: Mapping[str, NDArray[Any]]) -> tuple[int, str]:
    """Write arrays (none of them empty) as contiguous datasets of one HDF5 file, whole or not at all.

    Returns the file's size in bytes and its sha256. The same arrays give the same bytes.
    Raises DptrError if the disk is full.
    """
    memory = io.BytesIO()
    with h5py.File(memory, "w", alignment_threshold=4096, alignment_interval=4096) as file:
        for name, array in datasets.items():
            file.create_dataset(name, data=array, track_times=False)
    image = memory.getbuffer()
    write_whole(path, image)
    return image.nbytes, hashlib.sha256(image).hexdigest()


def open_shard(path: Path, size: int) -> h5py.File:
    """Open a shard for reading. DptrError if it is missing, is not `size` bytes long, or is no HDF5 file."""
    try:
        found = path.stat().st_size
        if found != size:
            raise OSError(f"it has {found:,} bytes where the manifest says {size:,}")
        return h5py.File(path, "r")
    except OSError as error:
        raise DptrError(
            f"shard {path} cannot be read: {error}. Restore it from a copy, or delete its space."
        ) from error


def map_dataset(dataset: h5py.Dataset) -> NDArray[Any]:
    """A read-only memory map of a contiguous dataset: random rows 13 times faster than through HDF5."""
    return np.memmap(dataset.file.filename, dataset.dtype, "r", dataset.id.get_offset(), dataset.shape)


def pack_strings(name: str, strings: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Strings as two datasets: `name`, their UTF-8 bytes end to end, and `name_offsets` (n + 1,), int64."""
    encoded = [s.encode() for s in strings]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(e) for e in encoded], out=offsets[1:])
    return {name: np.frombuffer(b"".join(encoded), np.uint8), f"{name}_offsets": offsets}


def unpack_strings(file: h5py.File, name: str) -> list[str]:
    """Inverse of `pack_strings`."""
    data, offsets = file[name][:].tobytes(), file[f"{name}_offsets"][:].tolist()
    return [data[a:b].decode() for a, b in pairwise(offsets)]
