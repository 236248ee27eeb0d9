"""index.faiss: a FAISS index, which `faiss.read_index` reads, and after it what dptr wants to know of it.

    FAISS's own bytes | JSON (UTF-8) with a CRC-32 | its length, 4 bytes, little-endian | sha256 of all before, 32 bytes

A large one is memory-mapped: searches then read the cells that they look into, and nothing else.
"""

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cache.errors import Damaged, DptrError
from cache.files import whole_file
from cache.seal import seal, unseal

INDEX = "index.faiss"
MAPPED = 256 << 20  # bytes from which a file is mapped
PIECE = 1 << 20  # bytes hashed and written together


@dataclass(frozen=True)
class Facts:
    """What is known of an index. It says nothing of time, so that equal banks have equal files."""

    kind: str  # exact, ivf, pq or hnsw
    pictures: int
    keys: str  # blake2b of their keys, in hexadecimal
    space: str  # digest of the fingerprint
    base: int  # how many of the first pictures its centroids are from
    cells: int  # 0 if it has none
    reach: int  # how many of them a search looks into, or how many candidates of a graph; 0: everything
    recall: float  # at 10, against exact search, for a sample of the pictures

    def __str__(self) -> str:
        """For people.

        >>> str(Facts("ivf", 100_000, "", "", 65_536, 1024, 16, 0.961))
        'ivf index of 100,000 pictures, 16 of 1,024 cells searched, recall@10 0.961'
        """
        looks = f", {self.reach:,} of {self.cells:,} cells searched" if self.cells else ""
        looks = looks or (f", {self.reach:,} candidates" if self.reach else "")
        return f"{self.kind} index of {self.pictures:,} pictures{looks}, recall@10 {self.recall:.3g}"


def write_index(path: Path, index: Any, facts: Facts) -> int:
    """Write an index, complete or not at all, without a copy in memory; returns its bytes. Raises as `whole_file`."""
    import faiss

    digest, failed, size = hashlib.sha256(), [], 0
    with whole_file(path) as write:

        def take(data: bytes) -> int:
            nonlocal size
            try:
                digest.update(data)
                write(data)
            except OSError as error:  # FAISS would make another error of it
                failed.append(error)
                return 0
            size += len(data)
            return len(data)

        writer = faiss.PyCallbackIOWriter(take, PIECE)
        try:
            faiss.write_index(index, writer)
            del writer  # which writes what it still holds
        except RuntimeError:
            if not failed:
                raise
        if failed:
            raise failed[0]
        text = seal(asdict(facts)).encode()
        take(text + len(text).to_bytes(4, "little"))
        write(digest.digest())
    return size + 32


def read_facts(path: Path) -> Facts | None:
    """What the file says of its index, unchecked; None if there is no file, or one of an earlier version."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 36))
            length = int.from_bytes(file.read(4), "little")
            if length > min(size - 36, 4096):
                return None
            file.seek(size - 36 - length)
            return Facts(**unseal(file.read(length)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return None
    except OSError as error:
        raise Damaged(path, f"it cannot be read ({error.strerror or error})") from error


def open_index(path: Path, mapped: bool = True) -> tuple[Any, Facts] | None:
    """The index and what is known of it; None as `read_facts`. Damaged if it does not match its checksum.

    A file of MAPPED bytes or more is memory-mapped if `mapped`; then nothing can be added to it.
    """
    if not path.exists():
        return None
    _check(path)
    facts = read_facts(path)
    if facts is None:
        return None
    import faiss

    flags = faiss.IO_FLAG_MMAP if mapped and facts.cells and path.stat().st_size >= MAPPED else 0
    try:
        return faiss.read_index(str(path), flags), facts
    except RuntimeError as error:
        raise DptrError(f"{path} cannot be read by this faiss: delete it, and run dptr embed-images again.") from error


def is_whole(data: bytes) -> bool:
    """Whether all bytes of an index match its checksum."""
    return hashlib.sha256(memoryview(data)[:-32]).digest() == data[-32:]


def _check(path: Path) -> None:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            left = path.stat().st_size - 32
            while left > 0 and (data := file.read(min(PIECE, left))):
                digest.update(data)
                left -= len(data)
            same = left == 0 and file.read() == digest.digest()
    except OSError as error:
        raise Damaged(path, f"it cannot be read ({error.strerror or error})") from error
    if not same:
        raise Damaged(path, "it does not match its checksum")
