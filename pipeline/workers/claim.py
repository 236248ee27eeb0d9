"""Claims: one file for each shard that is being made. Only one worker can create it, and only the driver removes it.

A claim holds as long as its worker lives. On the driver's own machine the kernel tells that: the worker has locked the
file, and the lock dies with it. From elsewhere the driver sees the file being touched every few seconds. It compares
times of the file system with each other only, so clocks may differ. A worker that was merely stopped for a while does
no harm when it goes on: what it leaves is as good as anyone's.
"""

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

try:
    import fcntl
except ImportError:  # Windows, where no driver runs
    fcntl = None  # type: ignore[assignment]

BEAT, LEASE = 5.0, 30.0  # seconds between touches, and without one until a claim is void


def worker_name() -> str:
    """A name for a worker of this process, as part of a file's; no two get the same."""
    host = "".join(c if c.isalnum() or c in "-_" else "_" for c in socket.gethostname())
    return f"{host}-{os.getpid()}-{os.urandom(2).hex()}"


def boot() -> str:
    """Names the running kernel, whose locks tell who lives; empty where that is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Claim:
    """The right to make a shard, from `claim` until `end`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor, self._ended = path, descriptor, Event()
        self._beating = Thread(target=self._beat, daemon=True)
        self._beating.start()

    def end(self, finished: bool) -> None:
        """If the shard is finished, the file stays, and the driver removes it with the task; else anyone may claim it.

        Once ended, nothing happens.
        """
        if self._ended.is_set():
            return
        self._ended.set()
        self._beating.join()
        if not finished:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with suppress(OSError):
                os.utime(self._descriptor)


def claim(path: Path, worker: str) -> Claim | None:
    """The claim whose file is `path`; None if another worker has it, or the job is over."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError:
        return None
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(descriptor, json.dumps({"worker": worker, "boot": boot()}).encode())
    return Claim(path, descriptor)


class Watch:
    """The driver's eye on the claims."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[int, float]] = {}  # when each was touched, and when that was seen
        self._boot = boot()

    def dead(self, path: Path) -> bool:
        """Whether the worker that made a claim is gone."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return False  # there is no claim
        try:
            if self._here(descriptor):
                return _is_free(descriptor)
            touched, now = os.fstat(descriptor).st_mtime_ns, time.monotonic()
            before, since = self._seen.get(path, (None, now))
            if before != touched:
                self._seen[path], since = (touched, now), now
            return now - since > LEASE
        finally:
            os.close(descriptor)

    def forget(self, path: Path) -> None:
        """The claim is removed."""
        self._seen.pop(path, None)

    def _here(self, descriptor: int) -> bool:
        """Whether the worker's kernel is this one. A claim without a text is too young to say so."""
        try:
            return bool(self._boot) and json.loads(os.pread(descriptor, 1000, 0))["boot"] == self._boot
        except (OSError, ValueError, KeyError):
            return False


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
