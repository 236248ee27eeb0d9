"""The job of a space: which shards are wanted, what they are made from, and those that are finished.

SPACE/job/
    job.json                     what makes the shards, and its settings; touched as long as its driver lives
    000012-4f1c….task            a shard that is wanted: the arrays it is made from, such as token ids
    000012-4f1c….claim           the worker that is making it (see claim.py)
    000012-4f1c….HOST-PID.h5     the shard
    000012-4f1c….HOST-PID.json   its line for the manifest; from here on it is finished
    000012-4f1c….HOST-PID.failed why a worker could not make it

A task is called after its place in the order and a hash of all that decides its shard, so what an earlier driver left
is used if it is wanted, and never mistaken for something else. What workers write has names of their own: should two
make the same shard, because one of them was thought dead, the first to finish is taken whole.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import DptrError
from cache.files import cannot_write, delete, make_folder, write_whole
from cache.seal import seal, unseal
from cache.shard import Entry, Image, write_shard
from cache.space import JOBS
from pipeline.elsewhere import Arrays

JOB = "job.json"


@dataclass(frozen=True)
class Finished:
    """A shard that a worker has left."""

    path: Path
    entry: Entry


class Job:
    """The job in the folder of a space. The driver writes `job.json` and tasks, workers all else."""

    def __init__(self, space: Path) -> None:
        self.folder = space / JOBS
        self._path = self.folder / JOB

    def begin(self, work: Mapping[str, Any]) -> None:
        """Say what the shards are. Tasks of an earlier driver are withdrawn, what is finished of them stays.

        DptrError if it cannot be written.
        """
        make_folder(self.folder)
        for path in [*self.folder.glob("*.task"), *self.folder.glob("*.failed")]:
            delete(path)
        write_whole(self._path, json.dumps(dict(work)).encode())

    def work(self) -> bytes:
        """What `begin` said, as it lies there; empty if there is no job."""
        try:
            return self._path.read_bytes()
        except OSError:
            return b""

    def touch(self) -> None:
        """The driver lives."""
        with suppress(OSError):
            os.utime(self._path)

    def touched(self) -> int:
        """When the driver lived, in nanoseconds by the file system's clock; 0 if there is no job."""
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return 0

    def end(self) -> None:
        """Every shard is in the manifest."""
        delete(self._path)  # from here on there is no job, whatever happens
        shutil.rmtree(self.folder, ignore_errors=True)

    def names(self) -> list[str]:
        """All files, in order; none if there is no job."""
        try:
            return sorted(os.listdir(self.folder))
        except OSError:
            return []

    def add(self, place: int, task: Arrays) -> str:
        """Want a shard; returns the name of its task. DptrError if it cannot be written."""
        memory = io.BytesIO()
        np.savez(memory, **task)  # type: ignore[arg-type]
        data = memory.getvalue()
        name = f"{place:06d}-{self._digest(self.work(), data)}"
        try:
            _put(self.folder / f"{name}.task", data)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        return name

    def task(self, name: str, work: bytes) -> Arrays | None:
        """What a shard is made from; None if it is no longer wanted, or not for this `work`."""
        try:
            data = (self.folder / f"{name}.task").read_bytes()
        except OSError:
            return None
        if not name.endswith(self._digest(work, data)):
            return None
        with np.load(io.BytesIO(data)) as arrays:
            return dict(arrays)

    def wants(self, name: str) -> bool:
        """Whether a shard is not in the manifest yet."""
        return (self.folder / f"{name}.task").exists()

    def claim(self, name: str) -> Path:
        """The file that says who makes a shard."""
        return self.folder / f"{name}.claim"

    def leave(self, name: str, worker: str, image: Image) -> None:
        """A worker has made a shard. DptrError if it cannot be written."""
        entry = write_shard(self.folder / f"{name}.{worker}.h5", image)
        write_whole(self.folder / f"{name}.{worker}.json", seal(asdict(entry)).encode())

    def fail(self, name: str, worker: str, why: str) -> None:
        """A worker cannot make a shard, and tells the driver if it can."""
        with suppress(OSError):
            _put(self.folder / f"{name}.{worker}.failed", why.encode())

    def finished(self, file: str) -> Finished:
        """The shard of a `.json` file. DptrError if it has changed since it was left."""
        try:
            entry = Entry.of(unseal((self.folder / file).read_bytes()))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DptrError(
                f"{self.folder / file} cannot be read ({error}): delete it, and run the same command to continue."
            ) from error
        return Finished(self.folder / entry.shard, entry)

    def remove(self, name: str) -> None:
        """A shard is in the manifest. The task goes first, so that nobody claims it again."""
        delete(self.folder / f"{name}.task")
        for path in self.folder.glob(f"{name}.*"):
            delete(path)

    @staticmethod
    def _digest(work: bytes, data: bytes) -> str:
        return hashlib.blake2b(work + data, digest_size=8).hexdigest()


def _put(path: Path, data: bytes) -> None:
    """Write a file that others see whole or not at all. After a power loss it may be gone: it can be made again."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    os.rename(temporary, path)
