"""The table of a bank's photographs nearest to and farthest from each memory's end token: `dptr neighbours`.

A shard holds `keys` (n, 16) uint8 of memories, `near` and `far` (n, k) int32, the numbers of photographs in the bank,
best first, and `made_for`, JSON that says for which photographs. A memory has one row, whichever corpora use it. A row
whose memory is gone stays right, should that memory be made again.
"""

import json
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cache.bank import Bank
from cache.collection import Collection
from cache.errors import Damaged, DptrError
from cache.keys import Keys, KeyTable, keys_from_disk, keys_to_disk
from cache.shard import Image, Shard

ABSENT = -1  # in the place of a photograph: the memory has no row
Table = NDArray[np.int32]  # (n, k)


@dataclass(frozen=True)
class MadeFor:
    """What a table was made for. A table for other photographs says nothing of these."""

    pictures: int
    keys: str  # blake2b of their keys, in hexadecimal
    k: int


class Neighbours(Collection):
    """The table of one bank."""

    @cached_property
    def made_for(self) -> MadeFor | None:
        """What it was made for; None if it is empty. Damaged if its shards differ in that."""
        found = {shard.read("made_for").tobytes(): shard for shard in self.shards()}
        if len(found) > 1:
            raise Damaged(list(found.values())[-1].path, "it was made for other photographs than the shards before it")
        return MadeFor(**json.loads(next(iter(found)))) if found else None

    def fits(self, bank: Bank) -> bool:
        """Whether it was made for the photographs that the bank has now."""
        made = self.made_for
        return made is not None and (made.pictures, made.keys) == (bank.rows, bank.pictures_digest(bank.rows))

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """The row of each memory (n,), or -1."""
        return KeyTable(self).find(keys)

    def shard_of(self, keys: Keys, near: Table, far: Table, made_for: MadeFor) -> Image:
        """Rows as one shard: keys (n,), near and far (n, k)."""
        said = np.frombuffer(json.dumps(asdict(made_for)).encode(), np.uint8)
        return self.image(len(keys), {"keys": keys_to_disk(keys), "near": near, "far": far, "made_for": said})

    def read(self, side: str, memories: Collection, bank: Bank) -> Table:
        """`near` or `far` (N, k) int32: row n is of memory number n, as `Memories.find` counts, or ABSENT throughout.

        DptrError if there is no table, or one for other photographs than the bank has now.
        """
        again = f"run dptr neighbours CORPUS {bank.name}."
        if self.made_for is None:
            raise DptrError(f"bank '{bank.name}' has no table of neighbours: {again}")
        if not self.fits(bank):
            raise DptrError(
                f"the neighbours of bank '{bank.name}' were found among {self.made_for.pictures:,} other photographs "
                f"than the {bank.rows:,} that it has now: {again}"
            )
        rows = np.full((memories.rows, self.made_for.k), ABSENT, np.int32)
        table = KeyTable(memories)
        for shard in self.shards():
            numbers = table.find(keys_from_disk(shard.read("keys")))
            rows[numbers[numbers >= 0]] = self._checked(shard, side, bank)[numbers >= 0]
        return rows

    def _checked(self, shard: Shard, side: str, bank: Bank) -> Table:
        found = shard.read(side)
        if found.min() < 0 or found.max() >= bank.rows:
            raise Damaged(shard.path, f"its {side} names photographs that bank '{bank.name}' does not have")
        return found
