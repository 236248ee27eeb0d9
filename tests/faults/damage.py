"""Files of a finished cache are damaged in thousands of ways."""

import random
from collections import Counter
from pathlib import Path

from cache.errors import DptrError
from cache.manifest import MANIFEST
from cache.verify import verify
from tests.faults import job


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
