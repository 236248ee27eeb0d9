"""Draws pictures into an LMDB of the field's form, for training that is faster than drawing.

They are written to a folder beside it, OUT.part, in transactions. So what is complete survives whatever happens, the
same command goes on behind it, and OUT appears when all of it is there.
"""

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from cache.errors import DptrError, WrongUse
from cache.files import cannot_write
from models.image_encoder import Pair
from sources.lmdbs import lmdb_key
from train.data.crops import Crops

CHUNK = 500  # pictures that a process draws at a time, and a transaction holds
QUALITY = 92  # of a JPEG, whose losses are then below those that are drawn
RECIPE = b"drawn-from"  # the key of what the pictures follow from


@dataclass(frozen=True)
class DrawnAhead:
    """The outcome of drawing ahead."""

    out: str
    count: int
    new: int  # pictures that this call drew
    seconds: float
    bytes: int  # of the LMDB


class _Chunks(Dataset[list[tuple[bytes, str]]]):
    """The item for (k, crop numbers) is encoded pictures k, k + 1 ... and what they say."""

    def __init__(self, crops: Crops, size: Pair, seed: int) -> None:
        self.crops, self.size, self.seed = crops, size, seed

    def __getitem__(self, item: tuple[int, list[int]]) -> list[tuple[bytes, str]]:
        first, numbers = item
        made = []
        for k, n in enumerate(numbers, first):
            draw = self.crops.drawing(n)
            assert draw
            picture, text = draw(Random(f"{self.seed} {k}"), self.size)
            packed = io.BytesIO()
            Image.fromarray(picture).save(packed, "JPEG", quality=QUALITY)
            made.append((packed.getvalue(), text))
        return made


def draw_ahead(
    crops: Crops, out: Path, count: int, size: Pair, seed: int, workers: int, say: Callable[[str], None]
) -> DrawnAhead:
    """Draw `count` pictures of crops that are drawn, each crop as often as the others, in an order of the seed's.

    Which picture a number has follows from the crops, the size and the seed, not from the workers. Raises WrongUse if
    OUT.part was begun from others, DptrError if it cannot be written.
    """
    import lmdb

    part = out.with_name(f"{out.name}.part")
    recipe = json.dumps({"from": crops.sets[0].drawn_from, "size": size, "seed": seed}).encode()
    began = time.perf_counter()
    try:
        part.mkdir(parents=True, exist_ok=True)
        room = count * (size[0] * size[1] * 3 + 4096) + (1 << 26)  # a bound: the file has what is written
        with closing(lmdb.open(str(part), map_size=room)) as environment:
            first = there = _begun(environment, part, recipe)
            if first:
                say(f"going on after {first:,} pictures")
            with tqdm(total=count, initial=first, desc="draw", unit="picture", delay=2) as bar:
                for pictures in _drawn(_Chunks(crops, size, seed), _items(len(crops), first, count, seed), workers):
                    there = _written(environment, there, pictures)
                    bar.update(len(pictures))
            with environment.begin(write=True) as transaction:  # of an earlier call that wanted more
                transaction.put(b"num-samples", str(count).encode())
        part.rename(out)
    except lmdb.Error as error:
        raise DptrError(f"{part} cannot be written: {error}.") from error
    except OSError as error:
        raise cannot_write(part, error) from error
    seconds = max(time.perf_counter() - began, 1e-3)
    return DrawnAhead(str(out), count, there - first, round(seconds, 3), (out / "data.mdb").stat().st_size)


def _begun(environment: Any, part: Path, recipe: bytes) -> int:
    """How many pictures are there. WrongUse if they were drawn from something else."""
    with environment.begin(write=True) as transaction:
        if (before := transaction.get(RECIPE)) not in (None, recipe):
            raise WrongUse(
                f"{part} was begun with other words, fonts, photographs, size or seed ({bytes(before).decode()}): "
                "repeat that command, delete the folder, or choose another --out."
            )
        transaction.put(RECIPE, recipe)
        return int(transaction.get(b"num-samples") or 0)


def _items(crops: int, first: int, count: int, seed: int) -> Iterator[tuple[int, list[int]]]:
    """(k, crop numbers) of chunks of pictures, each crop once in every `crops` pictures."""
    order, drawn = np.empty(0, np.int64), -1
    for start in range(first, count, CHUNK):
        numbers = []
        for k in range(start, min(start + CHUNK, count)):
            if k // crops != drawn:
                drawn = k // crops
                order = np.random.Generator(np.random.Philox(key=[seed, drawn])).permutation(crops)
            numbers.append(int(order[k % crops]))
        yield start, numbers


def _drawn(chunks: _Chunks, items: Iterator[tuple[int, list[int]]], workers: int) -> Iterator[list[tuple[bytes, str]]]:
    loader = DataLoader(
        chunks, batch_size=None, sampler=items, num_workers=workers, collate_fn=_as_it_is, prefetch_factor=4
    )
    yield from loader


def _written(environment: Any, first: int, pictures: list[tuple[bytes, str]]) -> int:
    """Write pictures behind the first ones; returns how many there are then."""
    with environment.begin(write=True) as transaction:
        for number, (picture, text) in enumerate(pictures, first + 1):
            transaction.put(lmdb_key(number).encode(), picture)
            transaction.put(b"label-%09d" % number, text.encode())
        transaction.put(b"num-samples", str(first + len(pictures)).encode())
    return first + len(pictures)


def _as_it_is(chunk: Any) -> Any:
    return chunk
