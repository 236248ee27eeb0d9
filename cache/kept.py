"""Checked parts of a cache that is elsewhere, kept on the local disk: a folder of bounded size for all processes.

DPTR_DISK names the folder, ~/.cache/dptr otherwise, and DPTR_DISK_SIZE how large it may grow, 20G otherwise. A part's
name has the sha256 of its shard, so what is kept is right for whatever cache holds that shard.

Once the folder is full, parts go that nobody has used since this process began, and then nothing more is kept. An epoch
reads everything once, in another order each time: keeping the first parts saves as large a share of the reads as the
disk can hold of the cache, where replacing the oldest would save a half of the square of that.
"""

import os
import re
import threading
import time
from contextlib import suppress
from pathlib import Path

from cache.errors import WrongUse

STEPS = 64  # the folder is looked at again whenever this part of its size was added
AGAIN = 60.0  # seconds after which a full folder is looked at again
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class Kept:
    """A folder of parts. Whoever reads one checks it: the folder promises nothing, and may lose any of them."""

    def __init__(self, folder: Path, size: int) -> None:
        """`size` in bytes; each further process that writes at the same time may exceed it by a part in STEPS."""
        self._folder, self._size, self._began = folder, size, time.time()
        self._room, self._look, self._lock = 0, 0.0, threading.Lock()

    def get(self, name: str) -> bytes | None:
        """A part, if it is kept."""
        path = self._folder / name
        with suppress(OSError):
            data = path.read_bytes()
            os.utime(path)
            return data
        return None

    def put(self, name: str, data: bytes) -> None:
        """Keep a part if there is room. A disk that refuses it is no error."""
        with suppress(OSError):
            if not self._has_room(len(data)):
                return
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
            try:
                temporary.write_bytes(data)
                temporary.rename(path)
            except OSError:
                temporary.unlink(missing_ok=True)

    def _has_room(self, size: int) -> bool:
        with self._lock:
            if self._room < size and time.monotonic() >= self._look:
                self._room = self._made_room(max(size, self._size // STEPS))
                self._look = time.monotonic() + AGAIN if self._room < size else 0.0
            if self._room < size:
                return False
            self._room -= size
            return True

    def _made_room(self, wanted: int) -> int:
        """Bytes that may be added, up to `wanted`."""
        found = [(path.stat(), path) for path in self._folder.glob("*/*")]
        left = self._size - sum(about.st_size for about, _ in found)
        for about, path in sorted(found, key=lambda one: one[0].st_mtime):
            if left >= wanted or about.st_mtime >= self._began:
                break
            path.unlink(missing_ok=True)
            left += about.st_size
        return min(left, wanted)


def kept_here() -> Kept:
    """The folder that the environment names. WrongUse for a size that is none."""
    folder = os.environ.get("DPTR_DISK") or Path.home() / ".cache" / "dptr"
    asked = os.environ.get("DPTR_DISK_SIZE") or "20G"
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", asked.strip().upper())
    if not found:
        raise WrongUse(f"DPTR_DISK_SIZE must be a size such as 20G or 500M, not '{asked}'.")
    return Kept(Path(folder) / "parts", int(float(found[1]) * UNITS[found[2]]))
