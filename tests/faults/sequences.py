"""Random sequences of all that can happen to a cache."""

import errno
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from cache.errors import DptrError
from cache.verify import verify
from tests.faults import job


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
