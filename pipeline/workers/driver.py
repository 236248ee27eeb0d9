"""The driver: plans ahead of the workers, and adds what they finish to the manifest, in order."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from itertools import chain
from typing import Any

from cache.collection import Collection
from cache.errors import DptrError
from cache.files import delete
from cache.space import Space
from pipeline.elsewhere import Arrays
from pipeline.workers.claim import BEAT, Watch
from pipeline.workers.crew import Crew
from pipeline.workers.plan import JOB, Job
from sources.ahead import ahead

AHEAD, MOST = 16, 512  # tasks that nobody has claimed yet, and tasks in all: those that wait for the disk, too
POLL, TEND = 0.02, 1.0  # seconds between looks at the folder, and at the workers
SILENT = 60.0  # seconds without any worker until the user is told


class Driver:
    """`pipeline.elsewhere.Elsewhere`: has shards made by a crew."""

    def __init__(self, crew: Crew, say: Callable[[str], None]) -> None:
        self._crew, self._say = crew, say

    def __call__(
        self, space: Space, collection: Collection, work: Mapping[str, Any], tasks: Iterator[Arrays]
    ) -> Generator[int, None, None]:
        """As in Elsewhere. If it is stopped, what is finished waits for the same command."""
        job, made = Job(space.folder), 0
        with closing(ahead(tasks)) as coming, ExitStack() as crew:
            first = next(coming, None)
            if first is None:
                return
            job.begin(work)
            crew.enter_context(self._crew.at(space))
            round_ = _Round(job, collection, chain([first], coming))
            heard = tended = touched = time.monotonic()
            while not round_.over():
                if rows := round_.commit():
                    made += 1
                    yield rows
                now = time.monotonic()
                if now - touched > BEAT:
                    job.touch()
                    touched = now
                if now - tended > TEND:
                    heard = now if round_.tend() or rows else heard
                    self._crew.tend(made)
                    tended = time.monotonic()
                if now - heard > SILENT:
                    self._say(f"no worker is at work on {job.folder}: start dptr worker, or see why they ended")
                    heard = now
                if not rows:
                    time.sleep(POLL)
        job.end()


class _Round:
    """The tasks that are wanted and not in the manifest yet."""

    def __init__(self, job: Job, collection: Collection, coming: Iterator[Arrays]) -> None:
        self._job, self._collection, self._coming = job, collection, coming
        self._waiting: deque[str] = deque()
        self._place, self._all = len(collection.entries), False
        self._watch = Watch()
        self._names: list[str] = []

    def over(self) -> bool:
        """Whether everything is in the manifest; plans ahead while it is not."""
        self._names = self._job.names()
        tasks, claimed = (sum(n.endswith(end) for n in self._names) for end in (".task", ".claim"))
        free = tasks - claimed
        while not self._all and free < AHEAD and len(self._waiting) < MOST:
            task = next(self._coming, None)
            if task is None:
                self._all = True
                break
            self._waiting.append(self._job.add(self._place, task))
            self._place, free = self._place + 1, free + 1
        return self._all and not self._waiting

    def commit(self) -> int:
        """Add the next shard to the manifest, if it is finished; returns its rows."""
        name = self._waiting[0] if self._waiting else " "
        file = next((n for n in self._names if n.startswith(f"{name}.") and n.endswith(".json")), None)
        if file is None:
            return 0
        finished = self._job.finished(file)
        self._collection.adopt(finished.path, finished.entry)
        self._job.remove(self._waiting.popleft())
        return finished.entry.rows

    def tend(self) -> bool:
        """Void the claims of workers that are gone; whether there are others. DptrError if a shard cannot be made."""
        alive, files = False, self._names
        done = {n.split(".")[0] for n in files if n.endswith(".json") and n != JOB}
        for file in files:
            if file.endswith(".failed"):
                raise DptrError((self._job.folder / file).read_text())
            name = file.removesuffix(".claim")
            if name == file or name in done:
                continue
            path = self._job.claim(name)
            if self._watch.dead(path):
                delete(path)
                self._watch.forget(path)
            else:
                alive = True
        return alive
