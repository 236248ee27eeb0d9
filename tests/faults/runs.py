"""Each kind of fault, repeated: kills, refused calls, damaged files, and sequences of them all."""

import errno
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from cache.errors import DptrError
from cache.manifest import MANIFEST
from cache.verify import verify
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


def refusals(folder: Path, encoder, stride: int) -> Counter[str]:
    """Each `stride`-th system call of the job and of gc fails: input/output error, full disk, full in mid-write."""
    everything = [*job.parts(encoder, 20), job.clean]
    whole, cut = folder / "whole", folder / "cut"
    for part in everything:
        part(whole)
    expected = job.files(whole)
    done: Counter[str] = Counter()
    before = folder / "before"
    for number, part in enumerate(everything):
        job.copy(folder / "none", before)
        for earlier in everything[:number]:
            earlier(before)
        if part is job.clean:  # something to clean: a corpus is gone
            _drop(before, "two")
        for n, (error, short) in enumerate(((errno.EIO, False), (errno.ENOSPC, False), (errno.ENOSPC, True))):
            for call in range(1 + n * stride // 3, 10_000, stride):  # other calls each time, or a kind may be missed
                job.copy(before, cut)
                with job.failing(call, error, short) as met:
                    try:
                        part(cut)
                    except DptrError as refused:
                        done["refusals told"] += str(cut) in str(refused)
                if not met:
                    break  # the part has fewer calls than that
                done[f"refused {met[0]}"] += 1
                found = job.problems(cut)
                assert not found, (call, met, found)
                part(cut)
                if part is job.clean:
                    job.parts(encoder, 20)[1](cut)
                    assert job.same_values(job.everything(cut), job.everything(whole))
                elif number == len(everything) - 2:
                    job.clean(cut)
                    assert job.files(cut) == expected
                else:
                    assert not job.problems(cut)
    return done


def full_disks(folder: Path, encoder, step: int) -> Counter[str]:
    """The job on a small disk in memory, of one size after another, that is made larger once it is full."""
    everything = job.parts(encoder, 60)
    whole, disk = folder / "whole", folder / "disk"
    for part in everything:
        part(whole)
    expected = job.files(whole)
    done: Counter[str] = Counter()
    disk.mkdir()
    for size in range(step, sum(len(data) + 4096 for data in expected.values()), step):
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            done["not permitted to mount"] = 1
            break
        try:
            try:
                for part in everything:
                    part(disk / "cache")
            except DptrError as refused:
                done["full disks told"] += "No space left on device" in str(refused)
            found = job.problems(disk / "cache")
            assert not found, found
            subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
            for part in everything:
                part(disk / "cache")
            job.clean(disk / "cache")
            assert job.files(disk / "cache") == expected
            done["finished byte-identical"] += 1
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    return done


def mutations(folder: Path, encoder, count: int) -> Counter[str]:
    """Damage one file of a finished cache in `count` ways; each time, verify it and read all that can be read.

    Damage must be noticed and named, or change nothing. Every fiftieth time it is repaired and the job run again.
    """
    random_ = random.Random(0)
    whole, cut = folder / "whole", folder / "cut"
    for part in job.parts(encoder, 60):
        part(whole)
    expected, values = job.files(whole), job.everything(whole)
    job.copy(whole, cut)
    names = sorted(expected)
    done: Counter[str] = Counter()
    for number in range(count):
        name = names[number % len(names)]
        data, how = _damaged(expected[name], random_, name.endswith(MANIFEST))
        if data == expected[name]:
            continue
        done[how] += 1
        (cut / name).write_bytes(data)
        found = job.problems(cut, unlisted=True)
        named = any(str(Path(name).parent) in problem for problem in found)
        try:
            assert job.everything(cut) == values, (name, how, "unnoticed by readers")
            done["read as before"] += 1
        except DptrError:
            done["refused by readers"] += 1
            assert named, (name, how, found)
        if name.endswith(".h5"):
            assert any(name in problem for problem in found), (name, how, found)
        done["named by verify" if named else "without effect"] += 1
        if number % 50 == 0:
            verify(cut, None, True, lambda n: None)
            assert all("have no memory" in problem for problem in job.problems(cut))
            for part in job.parts(encoder, 60):
                part(cut)
            assert not job.problems(cut)
            assert job.same_values(job.everything(cut), values)
            done["repaired and made again"] += 1
            job.copy(whole, cut)
        else:
            (cut / name).write_bytes(expected[name])
    return done


def sequences(folder: Path, encoder, examples: int) -> Counter[str]:
    """Whatever happens before a part is done (kills, refusals, gc, verify), the end is the plain cache, byte for byte,
    or value for value if shards were damaged and repaired.
    """
    everything = job.parts(encoder, 40)
    whole, cut = folder / "whole", folder / "cut"
    for part in everything:
        part(whole)
    expected, values = job.files(whole), job.everything(whole)
    done: Counter[str] = Counter()
    happening = st.one_of(
        st.tuples(st.just("kill"), st.integers(0, 60)),
        st.tuples(st.just("refuse"), st.integers(1, 60)),
        st.tuples(st.sampled_from(["gc", "verify", "again"]), st.just(0)),
        st.tuples(st.just("damage"), st.integers(0, 1000)),
    )
    plan = st.lists(st.lists(happening, max_size=4), min_size=len(everything), max_size=len(everything))

    @seed(0)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(plan)
    def ends_as_the_plain_one(plan):
        job.copy(folder / "none", cut)
        repaired = False
        for n, events in enumerate(plan):

            def work(n: int = n) -> None:
                first = 0 if repaired else n  # noqa: B023 (asked when it is called); what was dropped is made again
                for part in everything[first : n + 1]:
                    part(cut)

            for what, number in events:
                done[what] += 1
                repaired |= _happen(what, number, work, cut)
            work()
        if repaired:
            for part in everything:
                part(cut)
        job.clean(cut)
        assert not job.problems(cut)
        if repaired:
            assert job.same_values(job.everything(cut), values)
        else:
            assert job.files(cut) == expected
        done["sequences"] += 1

    ends_as_the_plain_one()
    return done


def _happen(what: str, number: int, work: Callable[[], object], cut: Path) -> bool:
    """Let something happen to a cache. Returns whether a shard was dropped."""
    if what == "kill":
        job.killed(work, call=number)
    elif what == "refuse":
        with job.failing(number, errno.EIO), suppress(DptrError):
            work()
    elif what == "again":
        work()
    elif what == "gc":
        job.clean(cut)
    elif what == "verify":
        assert all("have no memory" in problem for problem in job.problems(cut))  # after a repair
    elif shards := sorted(cut.rglob("*.h5")):
        path = shards[number % len(shards)]
        data = bytearray(path.read_bytes())
        data[number % len(data)] ^= 1
        path.write_bytes(data)
        if any(cut.glob("*/space.json")):
            verify(cut, None, True, lambda n: None)
        return True
    return False


def _damaged(data: bytes, random_: random.Random, manifest: bool) -> tuple[bytes, str]:
    """Damaged content for a file, and what was done to it."""
    how = random_.choice(["flip", "flip", "flip", "cut", "zero", "garbage", "longer"])
    changed = bytearray(data)
    if how == "flip":
        for _ in range(random_.choice([1, 1, 1, 2, 8])):
            changed[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    elif how == "cut":
        ends = [0, 1, len(data) // 2, len(data) - 1, random_.randrange(len(data)), len(data) & ~4095]
        if manifest:  # an end of line is where it once ended, and what follows was never written
            ends = [end for end in ends if end and data[end - 1 : end] != b"\n" and data[end : end + 1] != b"\n"]
            ends = [data.rindex(b"\n", 0, -1) // 2] if not ends and data.count(b"\n") > 1 else ends or [len(data)]
        del changed[random_.choice(ends) :]
    elif how == "longer":
        changed += random_.randbytes(random_.randint(1, 5000))
    else:
        start = random_.randrange(len(data))
        end = min(len(data), start + random_.choice([1, 16, 512, 4096]))
        changed[start:end] = bytes(end - start) if how == "zero" else random_.randbytes(end - start)
    return bytes(changed), how


def _drop(cache: Path, corpus: str) -> None:
    shutil.rmtree(job.open_space(cache).folder / "corpora" / corpus)
