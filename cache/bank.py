"""A bank: photographs' features (N, T, D), class token first, with a FAISS index over the class-token row.

A shard holds `features` (n, T, D) float16, `ids` (UTF-8 end to end, names in the source) with `ids_offsets`, and `keys`
(n, 16) uint8, blake2b of the encoded picture. `index.faiss` is an inner-product index over the normalised class-token
rows, in the order of the bank; `skipped.json` maps names of pictures that could not be read to the reason.
"""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cache.collection import Collection
from cache.errors import DptrError
from cache.files import write_whole
from cache.memories import Keys, keys_to_disk, read_keys
from cache.shard import map_dataset, pack_strings, unpack_strings


def picture_key(data: bytes) -> bytes:
    """16 bytes that name a picture: blake2b over its encoded bytes."""
    return hashlib.blake2b(data, digest_size=16).digest()


class Bank(Collection):
    """The photographs of one bank; no picture stands in it twice."""

    def keys(self) -> Keys:
        """The key of each picture, (N,) S16."""
        return read_keys(self)

    def ids(self) -> list[str]:
        """The name each picture had in its source."""
        return [name for shard in self.shards() for name in unpack_strings(shard, "ids")]

    def features(self) -> NDArray[np.float16]:
        """All features, (N, T, D), read into memory."""
        if not self.entries:
            raise DptrError(f"bank '{self.name}' is empty: run dptr embed-images first.")
        maps = [map_dataset(shard["features"]) for shard in self.shards()]
        features = np.empty((self.rows, *maps[0].shape[1:]), np.float16)
        start = 0
        for part in maps:
            features[start : start + len(part)] = part
            start += len(part)
        return features

    def add(self, ids: Sequence[str], keys: Keys, features: NDArray[np.float16]) -> None:
        """Commit pictures as one shard: features (n, T, D) float16. DptrError if a value is not finite."""
        if not np.isfinite(features).all():
            raise DptrError("an image feature does not fit into float16: check the weights, or use --precision fp32.")
        self.append(len(ids), {"features": features, **pack_strings("ids", ids), "keys": keys_to_disk(keys)})

    def skipped(self) -> dict[str, str]:
        """Pictures that could not be read: name to reason."""
        path = self.folder / "skipped.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def record_skipped(self, skipped: dict[str, str]) -> None:
        """Add to the list of pictures that could not be read."""
        if skipped:
            merged = {**self.skipped(), **skipped}
            write_whole(self.folder / "skipped.json", (json.dumps(merged, indent=2) + "\n").encode())

    def write_index(self) -> None:
        """Build index.faiss anew if it does not cover the whole bank."""
        import faiss

        path = self.folder / "index.faiss"
        if path.exists() and faiss.read_index(str(path)).ntotal == self.rows:
            return
        rows = np.concatenate([shard["features"][:, 0] for shard in self.shards()]).astype(np.float32)  # class tokens
        faiss.normalize_L2(rows)
        index = faiss.IndexFlatIP(rows.shape[1])
        index.add(rows)
        write_whole(path, faiss.serialize_index(index).tobytes())
