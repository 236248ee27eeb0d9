"""A bank: photographs' features (N, T, D), class token first, with a FAISS index over the class-token row.

A shard holds `features` (n, T, D) float16, `ids` (UTF-8 end to end, names in the source) with `ids_offsets`, `keys`
(n, 16) uint8, blake2b of the encoded picture, and `decoding`, which says in words how it became pixels.
`index.faiss` is an inner-product index over the normalised class-token rows, in the order of the bank, with the sha256
of all that as its last 32 bytes, which FAISS does not read; `skipped.json` maps names of pictures that could not be
read to the reason.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.collection import Collection
from cache.errors import Damaged, DptrError
from cache.files import write_whole
from cache.keys import Keys, keys_to_disk, read_keys
from cache.seal import seal, unseal
from cache.shard import Image, Shard, check_finite, pack_strings, unpack_strings

INDEX, SKIPPED = "index.faiss", "skipped.json"


def picture_key(data: bytes) -> bytes:
    """The 16-byte key of a picture: blake2b over its encoded bytes."""
    return hashlib.blake2b(data, digest_size=16).digest()


class Bank(Collection):
    """The photographs of one bank, each of them once."""

    def keys(self) -> Keys:
        """The key of each picture, (N,) S16."""
        return read_keys(self)

    def ids(self) -> list[str]:
        """The name each picture had in its source."""
        return [name for shard in self.shards() for name in unpack_strings(shard, "ids")]

    def features(self) -> NDArray[np.float16]:
        """All features, (N, T, D), read into memory. DptrError if the bank is empty."""
        if not self.entries:
            raise DptrError(f"bank '{self.name}' is empty: run dptr embed-images first.")
        features = np.empty((self.rows, *self.entries[0].datasets["features"].shape[1:]), np.float16)
        start = 0
        for shard in self.shards():
            shard.read("features", features[start : start + shard.entry.rows])
            start += shard.entry.rows
        return features

    def decoding(self) -> str:
        """How the pictures were decoded, in the words of `shard_of`; empty if they are from before that was kept."""
        shard = next(self.shards(), None)
        return shard.read("decoding").tobytes().decode() if shard and "decoding" in shard.entry.datasets else ""

    def add(self, ids: Sequence[str], keys: Keys, features: NDArray[np.float16], decoding: str) -> None:
        """Commit pictures as one shard, see `shard_of`."""
        self.commit(self.shard_of(ids, keys, features, decoding))

    def shard_of(self, ids: Sequence[str], keys: Keys, features: NDArray[np.float16], decoding: str) -> Image:
        """Pictures as one shard: features (n, T, D) float16, and in words how the pictures were decoded.

        DptrError if a value is not finite.
        """
        check_finite(features, "an image feature")
        datasets = {"features": features, **pack_strings("ids", ids), "keys": keys_to_disk(keys)}
        return self.image(len(ids), {**datasets, "decoding": np.frombuffer(decoding.encode(), np.uint8)})

    def skipped(self) -> dict[str, str]:
        """Pictures that could not be read, name to reason. Damaged if skipped.json is."""
        path = self.folder / SKIPPED
        try:
            return dict(unseal(path.read_bytes())["skipped"]) if path.exists() else {}
        except (ValueError, KeyError) as error:
            raise Damaged(path, str(error)) from error

    def record_skipped(self, skipped: dict[str, str]) -> None:
        """Add to the list of pictures that could not be read."""
        before = self.skipped()
        if skipped.items() - before.items():
            text = seal({"skipped": {**before, **skipped}}, indent=2) + "\n"
            write_whole(self.folder / SKIPPED, text.encode())

    def index(self) -> Any:
        """The FAISS index, or None. Damaged if its checksum is wrong or it covers more pictures than the bank has."""
        import faiss

        path = self.folder / INDEX
        if not path.exists():
            return None
        data = path.read_bytes()
        if hashlib.sha256(data[:-32]).digest() != data[-32:]:
            raise Damaged(path, "it does not match its checksum")
        index = faiss.deserialize_index(np.frombuffer(data[:-32], np.uint8))
        if index.ntotal > Bank(self.folder, self.fingerprint).rows:  # it may have grown since this one was opened
            raise Damaged(path, f"it covers {index.ntotal:,} pictures and the bank has {self.rows:,}")
        return index

    def write_index(self) -> None:
        """Add the pictures that index.faiss does not cover yet."""
        import faiss

        index = self.index()
        if index is None:
            index = faiss.IndexFlatIP(self.entries[0].datasets["features"].shape[-1])
        start, known = 0, index.ntotal
        for shard in self.shards():
            start += shard.entry.rows
            if start > index.ntotal:
                index.add(_class_rows(shard)[index.ntotal - start :])
        if index.ntotal > known:
            data = faiss.serialize_index(index).tobytes()
            write_whole(self.folder / INDEX, data + hashlib.sha256(data).digest())


def _class_rows(shard: Shard) -> NDArray[np.float32]:
    import faiss

    rows = np.ascontiguousarray(shard.read("features")[:, 0], np.float32)
    faiss.normalize_L2(rows)
    return rows
