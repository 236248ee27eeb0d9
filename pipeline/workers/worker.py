"""A worker: makes the shards that drivers of a cache want, one at a time. `dptr worker` is one."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from cache.errors import DptrError
from cache.neighbours import MadeFor
from cache.space import JOBS, Space
from pipeline.elsewhere import Arrays, Build
from pipeline.workers.claim import Claim, claim, worker_name
from pipeline.workers.plan import JOB, Job

POLL = 0.1  # seconds between looks for something to do
MANY = 8  # tasks that nobody has claimed, from which on a worker claims one ahead and keeps none from the others
Make = Callable[[Arrays], Build]
Mine = tuple[str, Claim, Arrays]  # a task's name, the claim to it, and what the shard is made from


def work(
    cache: Path,
    space: str | None,
    say: Callable[[str], None],
    wait: float = 60.0,
    device: str = "auto",
    pretrained: str | None = None,
) -> int:
    """Make shards for the drivers of a cache, until there has been no living one for `wait` seconds; returns how many.

    `space` is the beginning of the names of the spaces to work for, all if None; `pretrained` says where the encoder's
    weights are on this machine. Raises DptrError, after telling the driver, for a shard that cannot be made.
    """
    made, since, touched = 0, time.monotonic(), dict[Path, int]()
    workplaces: dict[Path, Workplace] = {}
    while time.monotonic() - since < wait:
        for folder in (path.parents[1] for path in sorted(cache.glob(f"{space or ''}*/{JOBS}/{JOB}"))):
            job = Job(folder)
            if not (wanted := job.work()):  # it has just ended
                continue
            if job.touched() != touched.get(folder):  # its driver lives
                touched[folder], since = job.touched(), time.monotonic()
            place = workplaces.get(folder)
            if place is None or place.work != wanted:
                say(f"working for {folder}")
                place = workplaces[folder] = Workplace(Space(folder), wanted, device, pretrained)
            if done := place.make_all():
                made, since = made + done, time.monotonic()
        time.sleep(POLL)
    return made


class Workplace:
    """One job, and what it takes to make its shards."""

    def __init__(self, space: Space, work: bytes, device: str = "auto", pretrained: str | None = None) -> None:
        """`work` is what the job wanted when it was looked at."""
        self._job, self._name, self.work = Job(space.folder), worker_name(), work
        self._make = maker(space, work, device, pretrained)

    def make_all(self) -> int:
        """Make one shard after another until nobody wants one that is not claimed; returns how many.

        While one is computed, the last is built and written, and the next is claimed as long as there are many.
        """
        made, written, ahead = 0, list[Future[None]](), list[Future[Mine | None]]()
        with ThreadPoolExecutor(2) as beside:
            try:
                while self._job.work() == self.work and (mine := (ahead and ahead.pop().result()) or self._next()):
                    name, held, task = mine
                    with self._told(name, held):
                        ahead.append(beside.submit(self._next, MANY))
                        build = self._make(task)
                        while written:
                            written.pop().result()
                        written.append(beside.submit(self._leave, name, held, build))
                        made += 1
                while written:
                    written.pop().result()
            finally:
                if ahead and (mine := ahead.pop().result()):
                    mine[1].end(finished=False)
        return made

    def _next(self, many: int = 1) -> Mine | None:
        """The first task that nobody has claimed, with the claim to it; None if there are fewer than `many`."""
        files = self._job.names()
        taken = {n.split(".")[0] for n in files if n.endswith((".claim", ".json")) and n != JOB}
        free = [name for name in (n.removesuffix(".task") for n in files if n.endswith(".task")) if name not in taken]
        for name in free if len(free) >= many else ():
            if held := claim(self._job.claim(name), self._name):
                task = self._job.task(name, self.work)
                if task is not None:
                    return name, held, task
                held.end(finished=False)
        return None

    def _leave(self, name: str, held: Claim, build: Build) -> None:
        with self._told(name, held):
            self._job.leave(name, self._name, build())
            held.end(finished=True)

    @contextmanager
    def _told(self, name: str, held: Claim) -> Iterator[None]:
        """After an error the claim is given back, and the driver is told, unless another has made the shard."""
        try:
            yield
        except BaseException as error:
            held.end(finished=False)
            if not isinstance(error, DptrError):
                raise
            if self._job.wants(name):
                self._job.fail(name, self._name, f"worker {self._name} cannot make a shard: {error}")
                raise


def maker(space: Space, work: bytes, device: str, pretrained: str | None) -> Make:
    """What computes the shards of a job, loading no more than it takes.

    DptrError if this machine's encoder is not the one of the space, or if the job is of another version.
    """
    wanted = json.loads(work)
    if wanted["shards"] == "neighbours":
        from pipeline.neighbours import neighbour_maker

        return neighbour_maker(space, wanted["bank"], wanted["sides"], MadeFor(**wanted["made_for"]))
    from pipeline.embed_text import text_shard
    from pipeline.encoder import space_encoder
    from pipeline.picture_shards import picture_shard

    encoder, memories, bank = space_encoder(space, pretrained, device), space.memories, space.bank("any")
    if wanted["shards"] == "text":
        return lambda task: text_shard(encoder, memories, task)
    if wanted["shards"] == "pictures":
        return lambda task: picture_shard(encoder, bank, task, wanted["batch"])
    raise DptrError(f"{space.folder} wants shards of {wanted['shards']}, which this dptr cannot make: update it here.")
