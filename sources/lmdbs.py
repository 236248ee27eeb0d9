"""The field's LMDBs: `num-samples`, `image-%09d` (encoded picture) and `label-%09d` (UTF-8), numbered from 1."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cache.errors import DptrError
from cache.report import printable
from sources.files import LARGEST, TOO_LARGE
from sources.missing import UNLABELLED, NoPicture, NoText

_KEY = re.compile(rb"(?:image|label)-(\d{9})")


def is_lmdb(path: Path) -> bool:
    """Whether `path` is a folder that contains a data.mdb."""
    return (path / "data.mdb").is_file()


def lmdb_samples(path: Path) -> tuple[Sequence[int], int]:
    """The numbers of the entries, and how many more the LMDB says it has.

    They are all numbers up to the last that is there, or, if the LMDB has too few keys for that, those that it has.
    """
    with _reading(path) as (transaction, keys):
        said = _said(path, bytes(transaction.get(b"num-samples") or b"0"))
        last = min(said, max(_last(transaction, b"image-"), _last(transaction, b"label-")))
        there: Sequence[int] = range(1, last + 1)
        if last > keys:
            there = sorted(n for n in _numbers(transaction) if n <= last)
        return there, said - len(there)


def lmdb_labels(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """All labels in the order of `lmdb_samples`: NoText for one that is missing or not in the encoding."""
    there, _ = lmdb_samples(path)
    with _reading(path) as (transaction, _):
        for number in there:
            label = transaction.get(b"label-%09d" % number)
            try:
                yield NoText(UNLABELLED) if label is None else bytes(label).decode(encoding)
            except UnicodeDecodeError:
                yield NoText(f"that are not {encoding.upper()}")


def lmdb_pictures(path: Path) -> Iterator[tuple[str, bytes]]:
    """(key, encoded picture) in order: empty for an entry without one, and one NoPicture for all that are not there."""
    there, missing = lmdb_samples(path)
    for number in there:
        yield lmdb_key(number), lmdb_picture(path, number)
    if missing:
        yield "num-samples", NoPicture(f"the LMDB says that it has {missing:,} more pictures, which are not there")


def lmdb_picture(path: Path, number: int) -> bytes:
    """The encoded picture of entry `number`, from 1; empty if there is none. For any process, in any order."""
    with _reading(path) as (transaction, _):
        data = transaction.get(lmdb_key(number).encode()) or b""
        return TOO_LARGE if len(data) > LARGEST else bytes(data)


def lmdb_key(number: int) -> str:
    """The key of the picture of entry `number`, from 1."""
    return f"image-{number:09d}"


# An LMDB must not be opened twice in a process or again in its forks, so it stays open. A read-only environment without
# locks can be used across a fork: it is a map of the file.
_OPENED: dict[tuple[int, int], Any] = {}


@contextmanager
def _reading(path: Path) -> Iterator[tuple[Any, int]]:
    """A transaction, and how many keys there are. DptrError if the LMDB cannot be read, or is cut off."""
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
            yield transaction, _OPENED[key].stat()["entries"]
    except lmdb.Error as error:
        raise DptrError(f"the LMDB {path} cannot be read: {error}.") from error
    except OSError as error:
        raise DptrError(f"the LMDB {path} cannot be read: {error.strerror or error}.") from error


def _said(path: Path, number: bytes) -> int:
    try:
        return max(0, int(number))
    except ValueError:
        shown = printable(number[:40].decode("latin-1"))
        raise DptrError(f"the LMDB {path} has num-samples '{shown}', which is no number: make it again.") from None


def _last(transaction: Any, prefix: bytes) -> int:
    """The highest number of the entries whose keys begin with `prefix`; 0 if there are none."""
    with transaction.cursor() as cursor:
        before = cursor.prev if cursor.set_range(prefix + b":") else cursor.last  # the character after 9
        while before():
            key = bytes(cursor.key())
            if not key.startswith(prefix):
                return 0
            if found := _KEY.fullmatch(key):
                return int(found[1])
            before = cursor.prev  # another program's key
    return 0


def _numbers(transaction: Any) -> set[int]:
    """The numbers of all entries, found by walking through the keys."""
    with transaction.cursor() as cursor:
        return {int(found[1]) for key in cursor.iternext(values=False) if (found := _KEY.fullmatch(bytes(key)))}
