"""Workers and their driver, killed and stopped at random moments: the cache is the one that a single process makes."""

import os
import random
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pipeline.workers.claim as claims
from pipeline.workers.crew import Volunteers
from pipeline.workers.driver import Driver
from pipeline.workers.worker import work
from tests.faults import job

WORKERS = 3
FINISHED: set[int] = set()  # processes that have been waited for


def kills(folder: Path, encoder, count: int) -> Counter[str]:
    """SIGKILL one of three workers or the driver, `count` times, each of which is started again; or stop a worker for
    longer than its claim holds. In every second round workers seem to be on other machines than the driver.
    """
    random_, done = random.Random(0), Counter[str]()
    whole, cut = folder / "whole", folder / "cut"
    for part in job.parts(encoder, 200):
        part(whole)
    expected = job.files(whole)
    claims.BEAT, claims.LEASE = 0.05, 0.4

    def drive() -> None:
        for part in job.parts(encoder, 200, Driver(Volunteers(job.quiet), job.quiet)):
            part(cut)

    def serve() -> None:
        if done["rounds"] % 2:
            claims.boot = lambda: ""
        work(cut, None, job.quiet, 60.0, "cpu")

    while done["kills"] < count:
        job.copy(folder / "none", cut)
        FINISHED.clear()
        works = {"driver": drive, **{f"worker {n}": serve for n in range(WORKERS)}}
        running = {name: started(what) for name, what in works.items()}
        while not ended(running["driver"]):
            time.sleep(random_.uniform(0, 0.5))
            name = random_.choice(list(running))
            number = running[name]
            if name != "driver" and not random_.randrange(4):
                os.kill(number, signal.SIGSTOP)
                time.sleep(2 * claims.LEASE)
                os.kill(number, signal.SIGCONT)
                done["stopped for a while"] += 1
            elif not (name == "driver" and ended(number)):
                kill(number)
                running[name] = started(works[name])
                done["kills"] += 1
                done["of the driver"] += name == "driver"
        for name, number in running.items():
            if name != "driver":
                kill(number)
        assert not list(cut.glob("*/job"))
        job.clean(cut)
        assert job.files(cut) == expected
        done["finished byte-identical"] += 1
        done["rounds"] += 1
    return done


def started(work: Callable[[], None]) -> int:
    """The number of a process that does it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: there are none
        child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    return child


def kill(number: int) -> None:
    """End a process. AssertionError if it had failed before."""
    os.kill(number, signal.SIGKILL)
    _, status = os.waitpid(number, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the work failed by itself"


def ended(number: int) -> bool:
    """Whether a process has done its work. AssertionError if it failed."""
    if number in FINISHED:
        return True
    found, status = os.waitpid(number, os.WNOHANG)
    if found:
        assert os.WIFEXITED(status), status
        assert os.WEXITSTATUS(status) == 0, "the work failed by itself"
        FINISHED.add(number)
    return bool(found)
