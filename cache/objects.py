"""Objects below a URL, in any store that fsspec knows: read by ranges, written whole, asked for again after an error.

Credentials and endpoints are found as the store's own package finds them (of S3: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL).
"""

import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from cache.errors import DptrError

TOGETHER = 32  # requests at one time
PART = 8 << 20  # bytes that one request asks for
TRIES, PAUSE = 6, 0.1  # the pause in seconds, doubled after each try
ANSWERS = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)  # which asking again won't change
OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"max_pool_connections": TOGETHER}},  # s3fs would make 10
    "file": {"auto_mkdir": True},
}
Found = TypeVar("Found")


class Objects:
    """The objects below one URL, by their names relative to it. May be used by several threads, and after a fork."""

    def __init__(self, url: str) -> None:
        """DptrError if no installed package knows such URLs."""
        self.url, self._process = url.rstrip("/"), -1
        self._open()

    def address(self, name: str) -> str:
        """The whole URL of an object."""
        return f"{self.url}/{name}"

    def sizes(self) -> dict[str, int]:
        """The bytes of every object, by name; empty if nothing is there."""

        def find() -> dict[str, int]:
            store, root = self._open()
            store.invalidate_cache()
            try:
                found = store.find(root, detail=True)
            except FileNotFoundError:
                return {}
            return {path[len(root) :].lstrip("/"): int(about["size"]) for path, about in found.items()}

        return self._tried("", "listed", find)

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
        store, root = self._open()
        more = {} if store.async_impl else {"cache_type": "none"}  # or fsspec reads megabytes ahead
        data = bytes(store.cat_file(f"{root}/{name}", start=start, end=start + size, **more))
        if len(data) != size:
            raise EOFError(f"{len(data):,} bytes came where {size:,} were asked for")
        return data

    def _write(self, name: str, data: bytes) -> None:
        store, root = self._open()
        store.pipe_file(f"{root}/{name}", data)
        if (found := store.size(f"{root}/{name}")) != len(data):
            raise EOFError(f"it has {found:,} bytes after {len(data):,} were written")

    def _tried(self, name: str, done: str, ask: Callable[[], Found]) -> Found:
        for n in range(TRIES):
            try:
                return ask()
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

    def _open(self) -> tuple[Any, str]:
        """fsspec's file system, of this process, and where the URL is in it."""
        if self._process != os.getpid():
            from fsspec.core import url_to_fs

            try:
                opened = url_to_fs(self.url, **OPTIONS.get(self.url.split(":")[0], {}))
            except (ImportError, ValueError) as error:
                raise DptrError(
                    f"{self.url} cannot be opened ({error}): s3:// needs pip install 'dptr[remote]', other stores "
                    "fsspec's package for them."
                ) from error
            self._store, self._process = opened, os.getpid()
        return self._store
