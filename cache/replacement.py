"""A bank that becomes what its sources are now: `dptr embed-images --replace`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.bank import THUMBNAILS, Bank
from cache.errors import DptrError
from cache.files import delete
from cache.index_file import INDEX
from cache.keys import key_bytes, keys_from_disk
from cache.shard import Entry, Image, Shard, unpack_strings

Unwanted = Callable[[NDArray[np.float16]], Sequence[str]]  # for pictures' tokens (n, T, E), why not to keep each, or ""


def replace_pictures(
    bank: Bank, staged: Bank, names: Mapping[bytes, str], alike: bool, unwanted: Unwanted | None = None
) -> tuple[int, dict[str, str]]:
    """Make the pictures in `names` (key to name) the bank's: those it has, in its order, then those that are staged.

    The bank's own are only used if they are `alike`, decoded as the staged ones. Readers see one step. Shards all of
    whose pictures stay get another name and are not copied. If a picture goes, so does the index, before the others
    change. Returns how many went, and those of the bank's that are `unwanted`, with the reason. DptrError if none is
    left.
    """
    left, left_out, kept = dict(names), dict[str, str](), 0

    def parts() -> Iterator[Entry | Image]:
        nonlocal kept
        for one in (bank, staged) if alike else (staged,):
            for shard in one.shards():
                keys = key_bytes(keys_from_disk(shard.read("keys")))
                now = [left.pop(key, None) for key in keys]
                if unwanted and one is bank and any(now):
                    reasons = unwanted(shard.read("features"))
                    left_out.update({n: why for n, why in zip(now, reasons, strict=True) if n is not None and why})
                    now = [None if why else n for n, why in zip(now, reasons, strict=True)]
                kept += sum(name is not None for name in now) * (one is bank)
                if part := _part(bank, shard, now):
                    yield part

    made = bank.prepared(parts())
    if not made:
        raise DptrError(f"no picture is left for bank '{bank.name}', which stays as it is: check the sources.")
    gone = bank.rows - kept
    if gone:
        delete(bank.folder / INDEX)
    bank.switch(made)
    return gone, left_out


def _part(bank: Bank, shard: Shard, now: Sequence[str | None]) -> Entry | Image | None:
    """A shard as it is, if its pictures are called what they are `now`; else those that have a name, or None."""
    if list(now) == unpack_strings(shard, "ids"):
        return shard.entry
    rows = [n for n, name in enumerate(now) if name is not None]
    if not rows:
        return None
    found: dict[str, Any] = {}
    if THUMBNAILS in shard.entry.datasets:
        data, ends = shard.read(THUMBNAILS).tobytes(), shard.read(f"{THUMBNAILS}_offsets").tolist()
        found["thumbnails"] = [data[ends[n] : ends[n + 1]] for n in rows]
    decoding = shard.read("decoding").tobytes().decode()
    keys = keys_from_disk(shard.read("keys"))[rows]
    return bank.shard_of([str(now[n]) for n in rows], keys, shard.read("features")[rows], decoding, **found)
