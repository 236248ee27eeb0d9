"""Objects below a URL, in whatever store: read by ranges, written whole, asked for again after an error."""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cache.errors import DptrError
from cache.stores import open_store

TOGETHER = 32  # requests at one time
PART = 8 << 20  # bytes that one request asks for
TRIES, PAUSE = 6, 0.1  # the pause in seconds, doubled after each try
# which asking again won't change
ANSWERS = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)
Found = TypeVar("Found")


class Objects:
    """The objects below one URL, by their names relative to it. May be used by several threads."""

    def __init__(self, url: str) -> None:
        """DptrError if it cannot be opened."""
        self.url = url.rstrip("/")
        try:
            self._store = open_store(self.url)
        except (ImportError, OSError, ValueError) as error:
            raise DptrError(
                f"{self.url} cannot be opened ({error}): s3://, gs:// and az:// need pip install 'dptr[remote]', other "
                "stores fsspec's package for them."
            ) from error

    def address(self, name: str) -> str:
        """The whole URL of an object."""
        return f"{self.url}/{name}"

    def sizes(self) -> dict[str, int]:
        """The bytes of every object, by name; empty if nothing is there."""
        return self._tried("", "listed", self._store.sizes)

    def read(self, name: str, start: int, size: int) -> bytes:
        """Some bytes of an object, whose check is not known here; several requests at a time if they are many."""
        if not size:
            return b""
        if size <= PART:
            return self._tried(name, "read", lambda: self._range(name, start, size))
        parts = [(at, min(PART, start + size - at)) for at in range(start, start + size, PART)]
        with ThreadPoolExecutor(TOGETHER) as pool:
            return b"".join(pool.map(lambda part: self.read(name, *part), parts))

    def write(self, name: str, data: bytes) -> None:
        """Make an object, or another of the same name, of these bytes."""
        self._tried(name, "written", lambda: self._write(name, data))

    def _range(self, name: str, start: int, size: int) -> bytes:
        data = self._store.range(name, start, size)
        if len(data) != size:
            raise EOFError(f"{len(data):,} bytes came where {size:,} were asked for")
        return data

    def _write(self, name: str, data: bytes) -> None:
        self._store.write(name, data)
        if (found := self._store.size(name)) != len(data):
            raise EOFError(f"it has {found:,} bytes after {len(data):,} were written")

    def _tried(self, name: str, done: str, ask: Callable[[], Found]) -> Found:
        for n in range(TRIES):
            try:
                return ask()
            except DptrError:
                raise
            except ANSWERS as error:
                raise self._error(name, done, error) from error
            except Exception as error:  # each store has its own
                if n == TRIES - 1:
                    raise self._error(name, f"{done}, tried {TRIES} times", error) from error
                time.sleep(PAUSE * 2**n * random.uniform(0.5, 1))
        raise AssertionError

    def _error(self, name: str, done: str, error: Exception) -> DptrError:
        why = " ".join(f"{getattr(error, 'strerror', None) or error}".split()) or type(error).__name__
        return DptrError(
            f"{self.address(name)} cannot be {done} ({why}): check the URL, the network and the credentials, and run "
            "the same command again."
        )
