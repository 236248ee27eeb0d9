"""Turns pictures into shards of tokens, for banks and for frozen crops.

Pictures are decoded and preprocessed by threads ahead of the encoder, encoded in batches, and committed a shard at a
time. Decoding and resizing release Python's global lock, so threads are as fast as processes and need no copies
between them.
"""

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.bank import Bank, picture_key
from cache.errors import DptrError
from cache.keys import as_keys, key_bytes
from cache.replacement import Unwanted
from cache.shard import SHARD_BYTES, pack_strings, unpack_bytes
from pipeline.commit import committing
from pipeline.elsewhere import Arrays, Build
from pipeline.unfinished import Unfinished
from sources.ahead import ahead, mapped_ahead
from sources.pictures import DECODING, thumbnail

BATCH = {"cpu": 16, "cuda": 256}  # pictures in one forward pass: more overflow a CPU's caches, fewer leave a GPU idle
L = TypeVar("L")
Away = Callable[[int, Iterator[Arrays]], Iterator[int]]  # commits the shards of tasks, encoded in batches of a size


@dataclass
class Tally:
    """What became of the pictures that were read."""

    read: int = 0
    known: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """A preprocessed picture (3, H, W)."""

    name: str
    key: bytes
    pixels: Tensor
    thumbnail: bytes


class Tower(Protocol):
    """Turns pictures into tokens: an encoder, or its image tower alone at another size."""

    device: torch.device  # where it computes, or the first of several

    def pixels(self, data: bytes) -> Tensor:
        """Pixels (3, H, W) uint8 of an encoded picture. ValueError with a reason if it cannot be read."""

    def encoded(self, batches: Iterable[tuple[L, Tensor]]) -> Generator[tuple[L, NDArray[np.float16]], None, None]:
        """(label, tokens (B, T, E)) of each batch (label, pixels (B, 3, H, W)), in order."""


def embed_into(
    bank: Bank,
    tower: Tower,
    photos: Iterable[tuple[str, bytes]],
    shape: tuple[int, int],
    tally: Tally,
    unwanted: Unwanted | None = None,
    thumbnails: bool = False,
    known: Iterable[bytes] = (),
    away: Away | None = None,
) -> None:
    """Add the pictures (name, encoded bytes) that the bank does not have yet; each gives (T, E) = `shape` values.

    A shard holds whole batches, without what is `unwanted`, and `thumbnails` if asked for. Pictures with a `known` key
    are taken for the bank's. `away` encodes decoded pictures in other processes, to the same bytes. DptrError if the
    bank's pictures were decoded differently.
    """
    _check_decoding(bank)
    most = max(1, SHARD_BYTES // (shape[0] * shape[1] * 2))  # pictures per shard
    size = min(BATCH[tower.device.type], most)
    unfinished, seen = Unfinished(bank.folder, most // size), {*known, *key_bytes(bank.keys())}
    decoded = partial(_decoded, tower, seen, photos, tally, 4 * size, thumbnails)
    if away:
        for _ in away(size, (picture_task(some) for some in _batches(decoded(), most // size * size))):
            pass  # the source tells how far it is
        unfinished.forget()
        return
    with (
        closing(ahead(_batches(decoded(), size), 1)) as pictures,
        closing(unfinished.through(tower.encoded, _stacked(pictures), _name)) as encoded,
        committing(bank) as commit,
    ):
        while shard := list(islice(encoded, most // size)):
            some = [picture for batch, _ in shard for picture in batch]
            tokens = np.concatenate([tokens for _, tokens in shard])
            reasons = unwanted(tokens) if unwanted else [""] * len(some)
            tally.skipped |= {p.name: reason for p, reason in zip(some, reasons, strict=True) if reason}
            kept = [n for n, reason in enumerate(reasons) if not reason]
            if kept:
                if len(kept) < len(some):
                    some, tokens = [some[n] for n in kept], tokens[kept]
                names, keys = [p.name for p in some], as_keys([p.key for p in some])
                small = [p.thumbnail for p in some] if thumbnails else []
                commit(bank.shard_of, names, keys, tokens, DECODING, small, then=unfinished.committed())
    unfinished.forget()


def picture_task(some: Sequence[Picture]) -> Arrays:
    """What a shard of pictures is made from: `pixels` (n, 3, H, W) uint8, `keys` (n,), and the strings `names` and
    `thumbnails` as `pack_strings` stores them.
    """
    pixels, keys = torch.stack([p.pixels for p in some]).numpy(), as_keys([p.key for p in some])
    names, small = pack_strings("names", [p.name for p in some]), [p.thumbnail for p in some]
    return {"pixels": pixels, "keys": keys, **names, **pack_strings("thumbnails", small)}


def picture_shard(tower: Tower, bank: Bank, task: Arrays, size: int) -> Build:
    """Encodes a `picture_task` in batches of `size`; what is returned builds the shard."""
    pixels = torch.from_numpy(task["pixels"])
    tokens = [tokens for _, tokens in tower.encoded((None, batch) for batch in pixels.split(size))]
    names = [name.decode() for name in unpack_bytes(task.__getitem__, "names")]
    thumbnails = unpack_bytes(task.__getitem__, "thumbnails")
    small = thumbnails if any(thumbnails) else []
    return partial(bank.shard_of, names, task["keys"], np.concatenate(tokens), DECODING, small)


def decoded_alike(bank: Bank) -> bool:
    """Whether the bank's pictures were decoded as they are now.

    The bank, not the space, records that, since words do not depend on it.
    """
    return not bank.entries or bank.decoding() == DECODING


def _check_decoding(bank: Bank) -> None:
    if not decoded_alike(bank):
        then, option = bank.decoding() or "not recorded", {"banks": "--drop-bank", "crops": "--drop-crops"}
        raise DptrError(
            f"the pictures in {bank.folder} were decoded differently from now (then: {then}; now: {DECODING}): drop "
            f"them with dptr cache gc {option[bank.folder.parent.name]} {bank.name}, and run this command again."
        )


def _batches(pictures: Iterator[Picture], size: int) -> Iterator[list[Picture]]:
    while batch := list(islice(pictures, size)):
        yield batch


def _stacked(batches: Iterable[list[Picture]]) -> Iterator[tuple[list[Picture], Tensor]]:
    for batch in batches:
        yield batch, torch.stack([p.pixels for p in batch])


def _name(batch: list[Picture]) -> bytes:
    """Stands for a batch: its pictures, and how they became pixels."""
    return hashlib.blake2b(DECODING.encode() + b"".join(p.key for p in batch), digest_size=16).digest()


def _decoded(
    tower: Tower, seen: set[bytes], photos: Iterable[tuple[str, bytes]], tally: Tally, most: int, thumbnails: bool
) -> Iterator[Picture]:
    """Pictures whose keys are not `seen`, in order; decoding runs in threads, up to `most` pictures ahead."""
    broken: dict[bytes, str] = {}

    def found() -> Iterator[tuple[str, bytes, bytes | None]]:
        for name, data in photos:
            tally.read += 1
            key = picture_key(data)
            yield name, key, None if data and key in seen else data  # a picture seen before is not decoded again
            seen.add(key)

    def make(one: tuple[str, bytes, bytes | None]) -> tuple[str, bytes, Picture | str | None]:
        name, key, data = one
        try:
            small = thumbnail(data) if thumbnails and data is not None else b""
            return name, key, None if data is None else Picture(name, key, tower.pixels(data), small)
        except ValueError as error:
            return name, key, str(error)

    for name, key, made in mapped_ahead(make, found(), os.cpu_count() or 1, most):
        if isinstance(made, Picture):
            yield made
            continue
        if made:
            broken[key] = made
        if key in broken:
            tally.skipped[name] = broken[key]
        else:
            tally.known += 1
