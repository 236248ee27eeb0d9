"""Photographs to a bank of image tokens: `dptr embed-images SOURCE... --bank NAME`.

Pictures are read in order, decoded and preprocessed by threads ahead of the encoder, encoded in batches, and committed
a shard's worth at a time; then the FAISS index is written over the whole bank. Decoding and resizing leave Python's
lock alone, so threads do what processes would, without copies between them.
"""

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from cache.bank import Bank, picture_key
from cache.errors import DptrError
from cache.keys import as_keys
from cache.shard import SHARD_BYTES
from pipeline.encoder import Encoder
from pipeline.stage import MARGIN, Say, ahead, check_room, committing, say_encoder, size, writing_space
from sources.photos import decode

BATCH = {"cpu": 16, "cuda": 256}  # pictures in one forward pass: more leave a CPU's caches, fewer a GPU idle

L = TypeVar("L")


@dataclass(frozen=True)
class ImageSummary:
    """What `embed_images` did."""

    space: str
    bank: str
    read: int
    new: int  # encoded now
    known: int  # in the bank already, or the same picture twice in the sources
    skipped: dict[str, str]  # could not be decoded: name to reason
    shape: list[int]  # (T, E) of one picture
    bytes: int  # written for features
    seconds: float
    busy: float  # share of these in which the encoder computed


@dataclass
class Tally:
    """What became of the pictures that were read."""

    read: int = 0
    known: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """A picture (3, H, W), preprocessed."""

    name: str
    key: bytes
    pixels: Tensor


class Tower(Protocol):
    """What makes tokens of pictures: an encoder, or its image tower alone at another size."""

    device: torch.device  # where it computes, or the first of several

    def pixels(self, data: bytes) -> Tensor:
        """A picture in a file's bytes as pixels (3, H, W) uint8. ValueError with a reason if it cannot be read."""

    def encoded(self, batches: Iterable[tuple[L, Tensor]]) -> Iterator[tuple[L, NDArray[np.float16]]]:
        """Tokens (B, T, E) of pixels (B, 3, H, W), each batch with what came with it, in order."""


def embed_images(
    cache: Path, encoder: Encoder, photos: Iterable[tuple[str, bytes]], count: int | None, bank_name: str, say: Say
) -> ImageSummary:
    """Add every readable picture of `photos` (name, encoded bytes) to the bank and bring its index up to date.

    `count` is how many to expect, None if that is not known. Raises DptrError when no picture can be read, when the
    disk is too small, when another process is writing the space, or when a write fails; committed shards stay.
    """
    T, E = encoder.image_shape()
    tally = Tally()
    photos = _from_the_first_readable(iter(photos), tally)  # before anything is made on disk
    planned = (count or 0) * T * E * 2
    with writing_space(cache, encoder, planned, say) as space:
        bank = space.bank(bank_name)
        # how many of them a bank holds already shows only on the way
        free = check_room(cache, MARGIN if bank.entries else planned + MARGIN)
        say_encoder(encoder, space, say)
        expected = f"{count:,} pictures, at most {size(planned)}" if count else "pictures of unknown number"
        say(f"{expected}, {T} x {E} features each; {bank.rows:,} in the bank; {size(free)} free on the disk")
        before, began, computed = bank.bytes, time.perf_counter(), encoder.visual.busy
        with tqdm(photos, "encode", count, unit="picture", delay=2) as progress:
            embed_into(bank, encoder, progress, (T, E), tally)
        bank.record_skipped(tally.skipped)
        bank.write_index()
    seconds = time.perf_counter() - began
    return ImageSummary(
        space=space.name,
        bank=bank_name,
        read=tally.read,
        new=tally.read - tally.known - len(tally.skipped),
        known=tally.known,
        skipped=tally.skipped,
        shape=[T, E],
        bytes=bank.bytes - before,
        seconds=round(seconds, 3),
        busy=round((encoder.visual.busy - computed) / seconds, 3),
    )


def _from_the_first_readable(photos: Iterator[tuple[str, bytes]], tally: Tally) -> Iterator[tuple[str, bytes]]:
    """The pictures from the first that can be decoded; those before it are counted. DptrError if none can."""
    for name, data in photos:
        try:
            decode(data)
        except ValueError as error:
            tally.read += 1
            tally.skipped[name] = str(error)
        else:
            return chain([(name, data)], photos)
    examples = "; ".join(f"{name}: {reason}" for name, reason in islice(tally.skipped.items(), 3))
    raise DptrError(f"none of {tally.read:,} files could be read as a picture ({examples}): nothing was written.")


def embed_into(
    bank: Bank, tower: Tower, photos: Iterable[tuple[str, bytes]], shape: tuple[int, int], tally: Tally
) -> None:
    """Add the pictures (name, encoded bytes) that the bank has not yet, with `shape` (T, E) values each.

    Encoded in batches and committed in shards, which no batch crosses.
    """
    most = max(1, SHARD_BYTES // (shape[0] * shape[1] * 2))  # pictures of a shard
    size = min(BATCH[tower.device.type], most)
    pictures = ahead(_batches(_decoded(tower, bank, photos, tally, 4 * size), size))
    encoded = tower.encoded((batch, torch.stack([p.pixels for p in batch])) for batch in pictures)
    with committing(bank) as commit:
        while shard := list(islice(encoded, most // size)):
            some = [picture for batch, _ in shard for picture in batch]
            keys = as_keys([p.key for p in some])
            commit(bank.shard_of, [p.name for p in some], keys, np.concatenate([tokens for _, tokens in shard]))


def _batches(pictures: Iterator[Picture], size: int) -> Iterator[list[Picture]]:
    while batch := list(islice(pictures, size)):
        yield batch


def _decoded(
    tower: Tower, bank: Bank, photos: Iterable[tuple[str, bytes]], tally: Tally, most: int
) -> Iterator[Picture]:
    """Pictures not yet in the bank, in order; decoding runs in threads, up to `most` pictures ahead."""
    seen = {key.ljust(16, b"\0") for key in bank.keys().tolist()}  # numpy drops zeros at the end
    broken: dict[bytes, str] = {}
    waiting: deque[tuple[str, bytes, Future[Tensor] | None]] = deque()  # no future: seen before

    def finish() -> Iterator[Picture]:
        name, key, future = waiting.popleft()
        try:
            if future:
                yield Picture(name, key, future.result())
        except ValueError as error:
            broken[key] = str(error)
        if key in broken:
            tally.skipped[name] = broken[key]
        elif not future:
            tally.known += 1

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, data in photos:
            tally.read += 1
            key = picture_key(data)
            waiting.append((name, key, None if key in seen else pool.submit(tower.pixels, data)))
            seen.add(key)
            if len(waiting) > most:
                yield from finish()
        while waiting:
            yield from finish()
