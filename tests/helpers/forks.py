"""Commands in processes of their own, forked from one that has imported torch and done nothing else.

They are killed and end as started ones do, eight seconds sooner. What is said of the start itself needs `start`.
"""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "torch._dynamo", "torch.utils.tensorboard", "matplotlib.figure"])


class Forked:
    """`dptr` with these arguments, and environment variables; what it prints goes to files in `folder`."""

    def __init__(self, folder: Path, *arguments, **environment: str) -> None:
        folder.mkdir(exist_ok=True)
        self._arguments = [str(argument) for argument in arguments]
        self._printed = [str(folder / "stdout"), str(folder / "stderr")]
        self._process = CONTEXT.Process(target=_dptr, args=(self._arguments, environment, self._printed))
        self._process.start()

    def send_signal(self, number: int) -> None:
        """Returns at once, as that of subprocess.Popen does."""
        os.kill(self._process.pid, number)

    def wait(self) -> subprocess.CompletedProcess:
        """What a started process would have ended with."""
        self._process.join()
        printed = [Path(path).read_text() for path in self._printed]
        return subprocess.CompletedProcess(self._arguments, self._process.exitcode, *printed)


def _dptr(arguments: list[str], environment: dict[str, str], printed: list[str]) -> None:
    for descriptor, path in enumerate(printed, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.environ.update(environment)
    sys.argv = ["dptr", *arguments]
    from cli import main  # here, because it reads the rank from the environment

    main()
