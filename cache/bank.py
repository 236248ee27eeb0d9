"""A bank: photographs' features (N, T, D), class token first, with a FAISS index over the class-token row.

A shard holds `features` (n, T, D) float16, `ids` (UTF-8 end to end, names in the source) with `ids_offsets`, `keys`
(n, 16) uint8, blake2b of the encoded picture, and `decoding`, which says in words how it became pixels. Those of
photographs also hold `thumbnails`, JPEGs end to end, with `thumbnails_offsets`.
`index.faiss` is an inner-product index over the normalised class-token rows, in the order of the bank; `skipped.json`
maps names of pictures that could not be read to the reason.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import index
from cache.class_tokens import ClassTokens
from cache.collection import Collection
from cache.errors import Damaged, DptrError
from cache.files import delete, write_whole
from cache.index_file import INDEX, Facts, open_index, read_facts, write_index
from cache.keys import Keys, keys_to_disk, read_keys
from cache.remote import remote_of
from cache.seal import seal, unseal
from cache.shard import Image, check_finite, pack_strings, unpack_strings

SKIPPED, THUMBNAILS = "skipped.json", "thumbnails"
ALIKE, LOOKED_AT = 0.98, 1000  # the least cosine of near-duplicates, and pictures for which they are looked for


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

    def thumbnails(self, numbers: Sequence[int]) -> list[bytes]:
        """JPEGs of these pictures, for a person to see; empty for those added before they were kept."""
        found, start = dict[int, bytes](), 0
        for shard in self.shards():
            here = [n for n in numbers if start <= n < start + shard.entry.rows]
            if here and THUMBNAILS in shard.entry.datasets:
                data, offsets = shard.read(THUMBNAILS).tobytes(), shard.read(f"{THUMBNAILS}_offsets").tolist()
                found |= {n: data[offsets[n - start] : offsets[n - start + 1]] for n in here}
            start += shard.entry.rows
        return [found.get(n, b"") for n in numbers]

    def decoding(self) -> str:
        """How the pictures were decoded, in the words of `shard_of`; empty if they are from before that was kept."""
        shard = next(self.shards(), None)
        return shard.read("decoding").tobytes().decode() if shard and "decoding" in shard.entry.datasets else ""

    def add(self, ids: Sequence[str], keys: Keys, features: NDArray[np.float16], decoding: str) -> None:
        """Commit pictures as one shard, see `shard_of`."""
        self.commit(self.shard_of(ids, keys, features, decoding))

    def shard_of(
        self,
        ids: Sequence[str],
        keys: Keys,
        features: NDArray[np.float16],
        decoding: str,
        thumbnails: Sequence[bytes] = (),
    ) -> Image:
        """Pictures as one shard: features (n, T, D) float16, in words how they were decoded, and JPEGs of all or none.

        DptrError if a value is not finite.
        """
        check_finite(features, "an image feature")
        datasets = {"features": features, **pack_strings("ids", ids), "keys": keys_to_disk(keys)}
        datasets |= pack_strings(THUMBNAILS, thumbnails) if thumbnails else {}
        return self.image(len(ids), {**datasets, "decoding": np.frombuffer(decoding.encode(), np.uint8)})

    def skipped(self) -> dict[str, str]:
        """Pictures that could not be read, name to reason. Damaged if skipped.json is."""
        path = self.folder / SKIPPED
        try:
            return dict(unseal(path.read_bytes())["skipped"]) if path.exists() else {}
        except (ValueError, KeyError) as error:
            raise Damaged(path, str(error)) from error

    def record_skipped(self, skipped: dict[str, str], anew: bool = False) -> None:
        """Add to the list of pictures that could not be read; `anew` makes it this."""
        before = self.skipped()
        after = skipped if anew else {**before, **skipped}
        if after and after != before:
            write_whole(self.folder / SKIPPED, (seal({"skipped": after}, indent=2) + "\n").encode())
        elif not after:
            delete(self.folder / SKIPPED)

    def index(self) -> Any:
        """The FAISS index, memory-mapped if it is large, or None if there is none or it is of an earlier version.

        Damaged if it does not match its checksum, or is of other pictures than the bank's first ones.
        """
        opened = self._open_index(mapped=True)
        return opened[0] if opened else None

    def whole_index(self) -> Any:
        """The index, which covers every picture. DptrError if it does not; Damaged as `index`."""
        found = self.index()
        if found is None or found.ntotal < self.rows:
            covered = 0 if found is None else found.ntotal
            raise DptrError(
                f"the index of bank '{self.name}' covers {covered:,} of its {self.rows:,} photographs: run the "
                "embed-images command that made it again."
            )
        return found

    def index_facts(self) -> Facts | None:
        """What is known of the index, without loading it; None as for `index`."""
        return read_facts(self.folder / INDEX)

    def write_index(self, kind: str = "auto") -> Facts:
        """Bring the index up to date: of this kind (see `cache.index`), and over all pictures.

        WrongUse for a kind that the bank is too small for, Damaged if a shard or the index has changed.
        """
        wanted, size = index.chosen(kind, self.rows), index.base(self.rows)
        before = self.index_facts()
        if before and (before.kind, before.pictures) == (wanted, self.rows):
            self._open_index(mapped=True)  # so that an index which is kept is one that can be read
            return before
        tokens = self.class_tokens()
        grows = before and before.kind == wanted and (wanted == "exact" or (wanted != "hnsw" and before.base == size))
        opened = self._open_index(mapped=False) if grows else None
        found = opened[0] if opened else index.empty_index(wanted, tokens)
        index.add(found, tokens)
        own, queries = tokens.spread(index.SAMPLE, self.rows)
        recall = index.tune(found, tokens, queries, own)
        keys, cells = self.pictures_digest(self.rows), int(getattr(found, "nlist", 0))
        facts = Facts(wanted, self.rows, keys, self.fingerprint.digest, size, cells, index.reach(found), recall)
        write_index(self.folder / INDEX, found, facts)
        return facts

    def class_tokens(self) -> ClassTokens:
        """The vectors that the index is over. The bank must not be empty."""
        return ClassTokens(list(self.shards()))

    def near_duplicates(self) -> tuple[int, list[tuple[str, str]]]:
        """How many pictures were looked at, and which of them have a neighbour with a cosine above ALIKE, and which.

        The index must be up to date.
        """
        tokens = self.class_tokens()
        own, queries = tokens.spread(LOOKED_AT, self.rows)
        if self.rows == 1:
            return 1, []
        found = index.search(self.whole_index(), queries, 2)
        others = np.where(found[:, 0] == own, found[:, 1], found[:, 0])
        close = np.flatnonzero((queries * tokens.of(others)).sum(1) > ALIKE)
        ids = self.ids() if len(close) else []
        return len(own), [(ids[own[n]], ids[others[n]]) for n in close]

    def pictures_digest(self, count: int) -> str:
        """blake2b over the keys of the first `count` pictures, in hexadecimal: which pictures these are."""
        return hashlib.blake2b(self.keys()[:count].tobytes(), digest_size=16).hexdigest()

    def _open_index(self, mapped: bool) -> tuple[Any, Facts] | None:
        path, remote = self.folder / INDEX, remote_of(self.folder)
        if remote:
            remote.bring(path)
        opened = open_index(path, mapped)
        if opened is None:
            return None
        facts, now = opened[1], Bank(self.folder, self.fingerprint)  # it may have grown since this one was opened
        if facts.pictures > now.rows:
            raise Damaged(path, f"it covers {facts.pictures:,} pictures and the bank has {now.rows:,}")
        if (facts.space, facts.keys) != (self.fingerprint.digest, now.pictures_digest(facts.pictures)):
            raise Damaged(path, "it is of other pictures than the bank's, or of another encoder")
        return opened
