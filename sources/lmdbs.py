"""The field's LMDBs: `num-samples`, `image-%09d` (encoded picture) and `label-%09d` (UTF-8), numbered from 1."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cache.errors import DptrError


def is_lmdb(path: Path) -> bool:
    """Whether `path` is a folder that contains a data.mdb."""
    return (path / "data.mdb").is_file()


def lmdb_samples(path: Path) -> int:
    """The number of entries that the LMDB says it has."""
    with _reading(path) as (_, samples):
        return samples


def lmdb_labels(path: Path) -> Iterator[str]:
    """All labels in order; empty for an entry without one."""
    with _reading(path) as (transaction, samples):
        for number in range(1, samples + 1):
            yield (transaction.get(b"label-%09d" % number) or b"").decode("utf-8", "replace")


def lmdb_pictures(path: Path) -> Iterator[tuple[str, bytes]]:
    """(key, encoded picture) in order; an entry without one gives empty bytes."""
    with _reading(path) as (transaction, samples):
        for number in range(1, samples + 1):
            key = lmdb_key(number)
            yield key, bytes(transaction.get(key.encode()) or b"")


def lmdb_picture(path: Path, number: int) -> bytes:
    """The encoded picture of entry `number`, from 1; empty if there is none. For any process, in any order."""
    with _reading(path) as (transaction, _):
        return bytes(transaction.get(lmdb_key(number).encode()) or b"")


def lmdb_key(number: int) -> str:
    """The key of the picture of entry `number`, from 1."""
    return f"image-{number:09d}"


# An LMDB must not be opened twice in a process or again in its forks, so it stays open. A read-only environment without
# locks can be used across a fork: it is a map of the file.
_OPENED: dict[tuple[int, int], Any] = {}


@contextmanager
def _reading(path: Path) -> Iterator[tuple[Any, int]]:
    """A transaction and the number of entries. DptrError if it cannot be read, or is cut off."""
    import lmdb

    try:
        file = (path / "data.mdb").stat()
        key = (file.st_dev, file.st_ino)
        if key not in _OPENED:
            opened = lmdb.open(str(path), readonly=True, lock=False, readahead=False)
            needed = (opened.info()["last_pgno"] + 1) * opened.stat()["psize"]
            if file.st_size < needed:  # reading beyond the end of the map would kill the process
                opened.close()
                raise DptrError(
                    f"the LMDB {path} is cut off: it has {file.st_size:,} of {needed:,} bytes; copy it again."
                )
            _OPENED[key] = opened
        with _OPENED[key].begin() as transaction:
            yield transaction, int(transaction.get(b"num-samples") or 0)
    except lmdb.Error as error:
        raise DptrError(f"the LMDB {path} cannot be read: {error}.") from error
    except OSError as error:
        raise DptrError(f"the LMDB {path} cannot be read: {error.strerror or error}.") from error
