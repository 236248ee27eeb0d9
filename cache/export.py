"""A corpus or a bank as plain arrays for other tools: `dptr cache export`.

A corpus becomes
    labels.parquet      label, count, memory (its number), start and rows (its first row in memories.npy, and how many)
    memories.npy        (ΣL, D) float16, each memory once, in the order in which labels first point at them
    prefix.npy          (P, D) float16, the rows that come before each memory's own
    text_projection.npy (D, E) float32
and a bank
    pictures.parquet    id (the name in its source), key (blake2b of the encoded picture, hexadecimal)
    features.npy        (N, T, E) float16, class token first
each with space.json. No more than a few thousand memories, or one shard, are held in memory.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.bank import Bank
from cache.errors import WrongUse
from cache.files import whole_folder
from cache.memories import MemoryReader
from cache.shard import unpack_strings
from cache.space import SPACE, Space

PAGE = 4096  # memories written together


def export_corpus(space: Space, name: str, out: Path, progress: Callable[[int], object]) -> int:
    """Write a corpus to the folder `out`; returns the number of labels. `progress` counts memories, then labels.

    Raises WrongUse if there is no such corpus or `out` exists, DptrError if memories are missing or a write fails.
    """
    corpus = space.existing_corpus(name)
    numbers = space.memory_numbers(corpus)
    unique, first, place = np.unique(numbers, return_index=True, return_inverse=True)
    order = np.argsort(first)  # memories in the order of the first label that points at them
    place, unique = np.argsort(order)[place], unique[order]
    reader = MemoryReader(space.memories)
    rows = reader.length[unique]
    starts = np.cumsum(rows) - rows
    with _folder(out, space) as folder:
        for array in ("prefix", "text_projection"):
            np.save(folder / f"{array}.npy", space.constants()[array])
        _save_rows(folder / "memories.npy", (int(rows.sum()), reader.width), _gathered(reader, unique, progress))
        done = 0

        def tables() -> Iterator[dict[str, Any]]:
            nonlocal done
            for shard in corpus.shards():
                here = place[done : done + shard.entry.rows]
                done += len(here)
                labels, counts = unpack_strings(shard, "labels"), shard.read("counts")
                yield {"label": labels, "count": counts, "memory": here, "start": starts[here], "rows": rows[here]}
                progress(len(here))

        _save_table(folder / "labels.parquet", tables())
    return corpus.rows


def export_bank(space: Space, name: str, out: Path, progress: Callable[[int], object]) -> int:
    """Write a bank to the folder `out`; returns the number of pictures. Raises as `export_corpus` does."""
    bank = space.existing_bank(name)
    shape = (bank.rows, *bank.entries[0].datasets["features"].shape[1:])
    with _folder(out, space) as folder:
        _save_table(folder / "pictures.parquet", _pictures(bank))
        _save_rows(folder / "features.npy", shape, _features(bank, progress))
    return bank.rows


def _gathered(reader: MemoryReader, numbers: NDArray[Any], progress: Callable[[int], object]) -> Iterator[NDArray[Any]]:
    for start in range(0, len(numbers), PAGE):
        part = numbers[start : start + PAGE]
        yield reader.gather(part)[0]
        progress(len(part))


def _pictures(bank: Bank) -> Iterator[dict[str, Any]]:
    for shard in bank.shards():
        yield {"id": unpack_strings(shard, "ids"), "key": [key.tobytes().hex() for key in shard.read("keys")]}


def _features(bank: Bank, progress: Callable[[int], object]) -> Iterator[NDArray[Any]]:
    for shard in bank.shards():
        yield shard.read("features")
        progress(shard.entry.rows)


@contextmanager
def _folder(out: Path, space: Space) -> Iterator[Path]:
    """A folder to fill, with space.json in it. WrongUse if `out` exists already."""
    if out.exists():
        raise WrongUse(f"{out} already exists: choose another --out, or delete it.")
    with whole_folder(out) as folder:
        shutil.copyfile(space.folder / SPACE, folder / SPACE)
        yield folder


def _save_rows(path: Path, shape: tuple[int, ...], parts: Iterable[NDArray[Any]]) -> None:
    """Write one .npy file of float16 from parts of its rows."""
    with path.open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(part.data)


def _save_table(path: Path, tables: Iterable[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    writer = None
    try:
        for columns in tables:
            table = pa.table(columns)
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer:
            writer.close()
