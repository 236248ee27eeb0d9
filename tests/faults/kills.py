"""The job is killed at random moments, or at each of its system calls."""

import random
import time
from collections import Counter
from pathlib import Path

from tests.faults import job


def kills(folder: Path, encoder, count: int, at_calls: bool, words: int) -> Counter[str]:
    """SIGKILL the job `count` times, at random moments or at each system call in turn, and let it go on after each.

    After each kill the cache is verified. After up to three, the job is finished and its cache must equal that of an
    undisturbed one, byte for byte.
    """
    random_ = random.Random(0)
    everything = job.parts(encoder, words)
    whole = folder / "whole"
    began = time.perf_counter()
    for part in everything:
        part(whole)
    seconds = time.perf_counter() - began
    expected, calls = job.files(whole), job.count_calls(lambda: [part(folder / "counted") for part in everything])
    stride = max(1, calls // count)
    done: Counter[str] = Counter()
    cut, since = folder / "cut", 0
    job.copy(folder / "none", cut)

    def work() -> None:
        for part in everything:
            part(cut)

    while done["kills"] < count:
        when = {"call": done["kills"] * stride % calls} if at_calls else {"after": random_.uniform(0, seconds)}
        hit = job.killed(work, **when)
        done["kills"] += hit
        found = job.problems(cut)
        assert not found, found
        since += 1
        if since == random_.randint(1, 3) or since == 3 or not hit or at_calls:
            work()
            job.clean(cut)
            assert job.files(cut) == expected
            done["finished byte-identical"] += 1
            job.copy(folder / "none", cut)
            since = 0
    return done
