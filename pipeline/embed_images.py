"""Photographs to a bank of image tokens: `dptr embed-images SOURCE... --bank NAME`.

Pictures are read in order, decoded and preprocessed by threads ahead of the encoder, encoded in batches, and committed
a shard's worth at a time; then the FAISS index is written over the whole bank.
"""

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cache.bank import Bank, picture_key
from cache.errors import DptrError
from cache.lock import writing
from cache.memories import as_keys
from cache.shard import SHARD_BYTES
from pipeline.encoder import Encoder
from pipeline.photos import decode
from pipeline.stage import MARGIN, Say, check_room, encoder_space, say_encoder, size

BATCH = 32  # pictures in one forward pass


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


@dataclass
class Tally:
    """What became of the pictures that were read."""

    read: int = 0
    known: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """A picture (3, H, W) float32, preprocessed."""

    name: str
    key: bytes
    pixels: Tensor


def embed_images(
    cache: Path, encoder: Encoder, photos: Iterable[tuple[str, bytes]], count: int | None, bank_name: str, say: Say
) -> ImageSummary:
    """Add every readable picture of `photos` (name, encoded bytes) to the bank and bring its index up to date.

    `count` is how many to expect, None if that is not known. Raises DptrError when no picture can be read, when the
    disk is too small, when another process is writing the space, or when a write fails; committed shards stay.
    """
    T, E = encoder.image_shape()
    space = encoder_space(cache, encoder, say)
    with writing(space.folder):
        bank = space.bank(bank_name)
        free = check_room(cache, (count or 0) * T * E * 2 + MARGIN if bank.rows < (count or 1) else 0)
        say_encoder(encoder, space, say)
        expected = f"{count:,} pictures, at most {size(count * T * E * 2)}" if count else "pictures of unknown number"
        say(f"{expected}, {T} x {E} features each; {bank.rows:,} in the bank; {size(free)} free on the disk")
        before, began, tally = bank.bytes, time.perf_counter(), Tally()
        with tqdm(photos, "encode", count, unit="picture", delay=2) as progress:
            _embed(encoder, bank, _decoded(encoder, bank, progress, tally))
        if not bank.entries:
            examples = "; ".join(f"{name}: {reason}" for name, reason in islice(tally.skipped.items(), 3))
            raise DptrError(f"none of {tally.read:,} files could be read as a picture ({examples}): no bank was made.")
        bank.record_skipped(tally.skipped)
        bank.write_index()
    return ImageSummary(
        space=space.name,
        bank=bank_name,
        read=tally.read,
        new=tally.read - tally.known - len(tally.skipped),
        known=tally.known,
        skipped=tally.skipped,
        shape=[T, E],
        bytes=bank.bytes - before,
        seconds=round(time.perf_counter() - began, 3),
    )


def _embed(encoder: Encoder, bank: Bank, pictures: Iterator[Picture]) -> None:
    pending: list[Picture] = []
    features: list[np.ndarray] = []

    def commit() -> None:
        names, keys = [p.name for p in pending], as_keys([p.key for p in pending])
        bank.add(names, keys, np.concatenate(features))
        pending.clear()
        features.clear()

    while batch := list(islice(pictures, BATCH)):
        features.append(encoder.image_tokens(torch.stack([p.pixels for p in batch])))
        pending += [Picture(p.name, p.key, torch.empty(0)) for p in batch]
        if sum(f.nbytes for f in features) >= SHARD_BYTES:
            commit()
    if pending:
        commit()


def _decoded(encoder: Encoder, bank: Bank, photos: Iterable[tuple[str, bytes]], tally: Tally) -> Iterator[Picture]:
    """Pictures not yet in the bank, in order; decoding runs in threads up to four batches ahead."""
    seen = set(bank.keys().tolist())

    def prepare(name: str, data: bytes) -> Picture | str:
        try:
            return Picture(name, picture_key(data), encoder.preprocess(decode(data)))
        except ValueError as error:
            return str(error)

    ahead: deque[tuple[str, Future[Picture | str]]] = deque()

    def finished() -> Iterator[Picture]:
        name, future = ahead.popleft()
        found = future.result()
        if isinstance(found, str):
            tally.skipped[name] = found
        else:
            yield found

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, data in photos:
            tally.read += 1
            key = picture_key(data).rstrip(b"\0")  # as numpy gives S16 back
            if key in seen:
                tally.known += 1
                continue
            seen.add(key)
            ahead.append((name, pool.submit(prepare, name, data)))
            if len(ahead) > 4 * BATCH:
                yield from finished()
        while ahead:
            yield from finished()
