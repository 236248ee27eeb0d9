"""A corpus and a bank that are replaced: whatever happens meanwhile, readers see the old one or the new one."""

import errno
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from cache.errors import DptrError
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.labels import collect
from tests.faults import job
from tests.helpers.pictures import picture

# of the first seven: two gone, one renamed, four as they were; then five new ones, and another that is broken
PICTURES = [*job.PICTURES[2:6], ("renamed.png", picture(6)), *((f"{n}.png", picture(n)) for n in range(10, 15))]
PICTURES += [("other.png", b"no picture")]


def replacements(folder: Path, encoder, stride: int, words: int) -> Counter[str]:
    """Kill the process at every `stride`-th system call of a replacement, or let the call fail; then go on."""

    def text(cache: Path) -> object:
        return embed_text(
            cache, encoder, collect(map(str, range(words // 5, words * 4 // 3))), "one", job.quiet, replace=True
        )

    def images(cache: Path) -> object:
        return embed_images(cache, encoder, iter(PICTURES), None, "noise", job.quiet, replace=True)

    before, cut, done = folder / "before", folder / "cut", Counter[str]()
    for part in job.parts(encoder, words)[:3]:
        part(before)
    for part in (text, images):
        after = job.copy(before, folder / "after")
        calls = job.count_calls(lambda part=part, after=after: part(after))
        job.clean(after)
        old, new, expected = _values(before), _values(after), job.files(after)
        assert old != new
        disturbances: list[Callable[[int], object]] = [
            lambda call, part=part: job.killed(lambda: part(cut), call=call),
            lambda call, part=part: _refused(lambda: part(cut), call),
        ]
        for call in range(0, calls, stride):
            for disturb in disturbances:
                job.copy(before, cut)
                disturb(call)
                assert not job.problems(cut)
                found = _values(cut)
                assert found in (old, new), call
                done["old" if found == old else "new"] += 1
                part(cut)
                job.clean(cut)
                assert job.files(cut) == expected, call
    return done


def _refused(work: Callable[[], object], call: int) -> None:
    with job.failing(call + 1, errno.EIO):
        try:
            work()
        except DptrError:
            return


def _values(cache: Path) -> dict[str, object]:
    """What the cache holds, but for the index and the pictures that could not be read, which are written last."""
    found = job.everything(cache)
    return {name: value[:3] if isinstance(value, tuple) and len(value) == 5 else value for name, value in found.items()}
