"""The system refuses what the job asks for: single calls, or all room on the disk."""

import errno
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from cache.errors import DptrError
from tests.faults import job


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


def _drop(cache: Path, corpus: str) -> None:
    shutil.rmtree(job.open_space(cache).folder / "corpora" / corpus)
