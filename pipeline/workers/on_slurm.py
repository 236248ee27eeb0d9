"""Workers as a job array of Slurm. Elements that end are submitted again, for as long as shards are wanted.

Slurm sees nothing of the work: an element is `dptr worker`, and finds its tasks in the cache's folder, which every node
must see.
"""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cache.errors import DptrError, WrongUse
from cache.files import write_whole
from cache.space import JOBS, Space
from pipeline.workers.crew import Losses

LOOK = 15.0  # seconds between looks at the queue
ALIVE = "PENDING,CONFIGURING,RUNNING,SUSPENDED,REQUEUED"
SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --output={folder}/slurm-%A-%a.log
#SBATCH --requeue
exec {python} -m cli worker --cache {cache} --space {space} --device {device}
"""


class SlurmCrew:
    """A `Crew` of array elements."""

    def __init__(
        self,
        count: int,
        sbatch: Sequence[str],
        say: Callable[[str], None],
        device: str = "auto",
    ) -> None:
        """`count` elements, submitted with these options of sbatch."""
        self._wanted, self._sbatch, self._say = set(range(count)), sbatch, say
        self._device = device
        self._losses = Losses()
        self._looked = 0.0
        self._name, self._script = "", Path()

    @contextmanager
    def at(self, space: Space) -> Iterator[None]:
        """As in Crew."""
        folder = space.folder.absolute() / JOBS
        self._name, self._script = f"dptr-{space.digest[:8]}", folder / "worker.slurm"
        write_whole(self._script, self.script(space).encode())
        running = self._running()
        if missing := self._wanted - running:
            number = self._submit(missing)
            self._say(f"job {number} submitted to Slurm, {len(missing):,} workers: {self._script}")
        try:
            yield
        finally:
            _run("scancel", "--name", self._name)

    def script(self, space: Space) -> str:
        """The script of an element."""
        folder = space.folder.absolute()
        return SCRIPT.format(
            name=self._name,
            folder=folder / JOBS,
            python=shlex.quote(sys.executable),
            cache=shlex.quote(str(folder.parent)),
            space=shlex.quote(folder.name),
            device=shlex.quote(self._device),
        )

    def tend(self, made: int) -> None:
        """As in Crew."""
        if time.monotonic() - self._looked < LOOK:
            return
        try:
            missing = self._wanted - self._running()
            self._losses.count(len(missing), made, len(self._wanted), f"their logs are in {self._script.parent}")
            if missing:
                self._submit(missing)
        except SlurmSilent:  # for a while, such as while its controller starts again
            pass

    def _running(self) -> set[int]:
        """The elements that run or wait."""
        self._looked = time.monotonic()
        listed = _run(
            "squeue", "--noheader", "--array", "--name", self._name, "--states", ALIVE, "--format", "%K"
        ).split()
        return {int(number) for number in listed if number.isdigit()}

    def _submit(self, elements: set[int]) -> str:
        array = ",".join(map(str, sorted(elements)))
        return _run("sbatch", "--parsable", *self._sbatch, "--array", array, str(self._script)).strip()


class SlurmSilent(DptrError):  # noqa: N818 (it names what Slurm is)
    """Slurm refuses a command, or does not answer."""


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError as error:
        raise WrongUse(
            f"--on slurm needs {command[0]}, which is not on this machine: run it where Slurm is."
        ) from error
    except subprocess.CalledProcessError as error:
        told = " ".join(error.stderr.split()) or f"exit code {error.returncode}"
        raise SlurmSilent(f"{command[0]} failed: {told}") from error
