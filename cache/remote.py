"""A cache that is elsewhere: `--cache s3://bucket/cache`, `hf://`, or any other URL that fsspec opens. Read only.

Opening it brings the small files (space.json, manifests) into a temporary folder, which then stands for the cache
wherever a folder is expected, and shows what was complete at that moment. Shards stay where they are. What is read of
them comes by ranged requests, is compared with its CRC, and is kept on the local disk (`cache.kept`).
"""

import atexit
import os
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from isal.isal_zlib import crc32
from numpy.typing import NDArray

from cache.errors import DptrError, WrongUse
from cache.files import write_whole
from cache.index_file import is_whole
from cache.kept import kept_here
from cache.manifest import MANIFEST
from cache.objects import TOGETHER, Objects
from cache.seal import unseal
from cache.shard import Entry, Place, Shard

SMALL = ("space.json", MANIFEST, "skipped.json")
LAST = ("memories", "constants")  # are read after what points at them, since they are written before it
_opened: dict[Path, "Remote"] = {}  # by the folder that stands for it


class Remote:
    """One cache that is elsewhere, as it was when this was made."""

    def __init__(self, url: str) -> None:
        """DptrError if it cannot be read."""
        self.objects, self.folder = Objects(url), Path(mkdtemp(prefix="dptr-"))
        atexit.register(_remove, self.folder, os.getpid())
        self._kept, self._coming, self._lock = kept_here(), dict[str, Future[bytes]](), threading.Lock()
        self.sizes = self.objects.sizes()
        parts = [name.split("/") for name in self.sizes if "/" in name]
        small = [one for one in parts if one[-1] in SMALL and ".." not in one]
        with ThreadPoolExecutor(TOGETHER) as pool:
            for last in (False, True):
                list(pool.map(self._bring, ["/".join(one) for one in small if (one[1] in LAST) == last]))

    def part(self, shard: "RemoteShard", start: int, size: int, right: Callable[[bytes], bool]) -> bytes:
        """Bytes of a shard for which `right` holds, from the local disk or else from elsewhere.

        Threads that want the same bytes at the same time share one request. DptrError, naming the object, if what
        comes is wrong twice.
        """
        key = f"{shard.entry.sha256[:32]}/{start}-{size}"
        with self._lock:
            mine = key not in self._coming
            coming = self._coming.setdefault(key, Future())
        if not mine:
            return coming.result()
        try:
            data = self._kept.get(key)
            if data is None or len(data) != size or not right(data):
                data = self.right(shard.path.relative_to(self.folder).as_posix(), start, size, right)
                self._kept.put(key, data)
            coming.set_result(data)
            return data
        except BaseException as error:
            coming.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._coming[key]

    def bring(self, path: Path) -> None:
        """Bring an index to its place below the folder, if there is one."""
        name = path.relative_to(self.folder).as_posix()
        if name in self.sizes and not path.exists():
            write_whole(path, self.right(name, 0, self.sizes[name], is_whole))

    def _bring(self, name: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, self.right(name, 0, self.sizes[name], _sealed))

    def right(self, name: str, start: int, size: int, right: Callable[[bytes], bool]) -> bytes:
        """Bytes of an object for which `right` holds. DptrError, naming it, if what comes is wrong twice."""
        for _ in range(2):
            data = self.objects.read(name, start, size)
            if right(data):
                return data
        raise DptrError(
            f"{self.objects.address(name)} does not match its checksum, and was read twice: run the command again and, "
            "if that does not help, remove this object and push it again with dptr cache push."
        )


class RemoteShard(Shard):
    """A shard that is elsewhere. Reading raises DptrError, naming the object, where a shard on disk is Damaged."""

    def __init__(self, remote: Remote, folder: Path, entry: Entry) -> None:
        self.path, self.entry, self._remote = folder / entry.shard, entry, remote

    def _read(self, name: str, place: Place, buffer: memoryview) -> None:
        buffer[:] = self._remote.part(self, place.offset, len(buffer), lambda data: crc32(data) == place.crc32)

    def rows(self, name: str, start: int, count: int, right: Callable[[NDArray[Any]], bool]) -> NDArray[Any]:
        """Rows of a dataset for which `right` holds, read-only."""
        place = self._place(name)
        shape, row = (count, *place.shape[1:]), prod(place.shape[1:]) * np.dtype(place.dtype).itemsize

        def rows(data: bytes) -> NDArray[Any]:
            return np.frombuffer(data, place.dtype).reshape(shape)

        return rows(self._remote.part(self, place.offset + start * row, count * row, lambda data: right(rows(data))))

    def map(self, name: str) -> NDArray[Any]:
        """WrongUse: what is mapped must be on a disk."""
        raise _on_disk_only(self._remote.objects.url, "a reader that is mapped")


def url_of(cache: Path) -> str | None:
    """The URL that a --cache is, whose slashes a path cannot keep; None if it is a folder.

    >>> url_of(Path("s3://bucket/cache")), url_of(Path("file:///tmp/cache")), url_of(Path("dptr-cache"))
    ('s3://bucket/cache', 'file:///tmp/cache', None)
    """
    found = re.match(r"([a-z][a-z0-9+.-]+):/(?=[^/])", str(cache))
    return found and f"{found[1]}:/{'//' if found[1] == 'file' else '/'}{str(cache)[found.end() :]}"


def local(cache: Path) -> Path:
    """The folder to read a cache from: itself or, for a URL, one that stands for it as it is now.

    Raises as `Remote`.
    """
    url = url_of(cache)
    if url is None:
        return cache
    remote = Remote(url)
    _opened[remote.folder] = remote
    return remote.folder


def remote_of(folder: Path) -> Remote | None:
    """The cache elsewhere that a folder stands for, or is part of."""
    return next((_opened[place] for place in (folder, *folder.parents) if place in _opened), None) if _opened else None


def open_shard(folder: Path, entry: Entry) -> Shard:
    """A shard of a collection, on disk or elsewhere. Damaged as `Shard`."""
    remote = remote_of(folder)
    return RemoteShard(remote, folder, entry) if remote else Shard(folder, entry)


def shown(path: Path) -> str:
    """A cache, or a folder in it, as people know it: by its path or URL."""
    remote = remote_of(path)
    if remote:
        return remote.objects.address(path.relative_to(remote.folder).as_posix()).removesuffix("/.")
    return url_of(path) or str(path)


def absolute(cache: Path) -> Path:
    """As `Path.absolute`, but a URL stays what it is."""
    return cache if url_of(cache) else cache.absolute()


def on_disk(cache: Path, what: str) -> None:
    """Raise WrongUse for a cache that is elsewhere, or a folder in it: `what` needs one on disk."""
    if url_of(cache) or remote_of(cache):
        raise _on_disk_only(shown(cache), what)


def _on_disk_only(url: str, what: str) -> WrongUse:
    return WrongUse(
        f"{what} needs a cache on disk, and {url} is elsewhere: get it with dptr cache pull, name that folder instead, "
        "and send what is new with dptr cache push."
    )


def _sealed(data: bytes) -> bool:
    """Whether JSON, or each whole line of it in a manifest, matches its check."""
    lines = [data] if data[:2] == b"{\n" else data.split(b"\n")[:-1]
    try:
        for line in lines:
            unseal(line)
    except ValueError:
        return False
    return True


def _remove(folder: Path, process: int) -> None:
    if process == os.getpid():  # and not one that was forked from it
        shutil.rmtree(folder, ignore_errors=True)
