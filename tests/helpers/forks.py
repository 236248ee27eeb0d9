"""Work in processes of their own, forked from one that has imported all that tests import and computed nothing.

They are killed and end as started ones do, ten seconds sooner. What is said of the start itself needs `start`.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

CONTEXT = multiprocessing.get_context("fork")
QUIET = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)  # as Python starts
_server: Connection | None = None


def begin() -> None:
    """Forks the process that forks the others: before the first test, as torch cannot be forked after a backward."""
    global _server
    _server, asked = CONTEXT.Pipe()
    if not os.fork():
        _server.close()
        _serve(asked)
    asked.close()


class Forked:
    """`work(*arguments)` with environment variables; what it prints goes to files in `folder`.

    `work` is a function of a module of the tests, which knows no monkeypatches.
    """

    def __init__(self, folder: Path, work: Callable, *arguments, **environment: str) -> None:
        folder.mkdir(exist_ok=True)
        self._arguments, self._printed = arguments, [folder / "stdout", folder / "stderr"]
        for path in self._printed:
            path.write_text("")
        _server.send((work, arguments, os.getcwd(), {**os.environ, **environment}, self._printed))
        self._number = _server.recv()

    @classmethod
    def module(cls, folder: Path, name: str, *arguments, **environment: str) -> "Forked":
        """`python -m name arguments...`."""
        return cls(folder, _module, name, *map(str, arguments), **environment)

    def send_signal(self, number: int) -> None:
        """Returns at once, as that of subprocess.Popen does."""
        os.kill(self._number, number)  # one that has ended waits for its parent, so the number is still its own

    def wait_until(self, text: str) -> None:
        """Returns as soon as stdout has it, or after a minute."""
        deadline = time.monotonic() + 60
        while text not in self._printed[0].read_text() and time.monotonic() < deadline:
            time.sleep(0.01)

    def wait(self) -> subprocess.CompletedProcess:
        """What a started process would have ended with."""
        _server.send(self._number)
        code = _server.recv()
        return subprocess.CompletedProcess(self._arguments, code, *(path.read_text() for path in self._printed))


def _serve(asked: Connection) -> None:
    """Starts processes and waits for them, until the process that asks has ended. Never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    started = {}
    while True:
        try:
            request = asked.recv()
        except EOFError:
            os._exit(0)
        if isinstance(request, int):
            process = started.pop(request)
            process.join()
            asked.send(process.exitcode)
        else:
            process = CONTEXT.Process(target=_run, args=request)
            process.start()
            started[process.pid] = process
            asked.send(process.pid)


def _run(work: Callable, arguments: tuple, folder: str, environment: dict[str, str], printed: list[Path]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor, path in enumerate(printed, 1):
        os.dup2(os.open(path, os.O_WRONLY), descriptor)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", closefd=False) for n in (1, 2))  # in place of pytest's
    warnings.resetwarnings()
    for kind in QUIET:
        warnings.simplefilter("ignore", kind)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    work(*arguments)


def _module(name: str, *arguments: str) -> None:
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)
