"""Shards are cut by bytes, and committed in order behind the work."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import DptrError
from pipeline.stage import committing, shards, size


@given(sizes=st.lists(st.integers(1, 50)), limit=st.integers(1, 100))
def test_shards_hold_everything_in_order_and_are_bounded_and_full(sizes, limit):
    found = list(shards(iter(sizes), lambda item: item, limit))
    assert [item for shard in found for item in shard] == sizes
    assert all(sum(shard) <= limit or len(shard) == 1 for shard in found)
    for shard, after in pairwise(found):
        assert sum(shard) + after[0] > limit


def test_commits_come_in_order_and_are_done_at_the_end():
    done = []
    with committing() as commit:
        for n in range(20):
            commit(done.append, n)
            assert len(done) >= n - 1  # at most one behind
    assert done == list(range(20))


def test_commit_that_fails_stops_the_work():
    def fail():
        raise DptrError("the disk is full")

    def work(more):
        with committing() as commit:
            commit(fail)
            for _ in range(more):
                commit(print)

    with pytest.raises(DptrError, match="the disk is full"):
        work(more=1)
    with pytest.raises(DptrError, match="the disk is full"):
        work(more=0)  # also if it was the last


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (5.3e12, "5.3 TB")])
def test_sizes_are_said_in_decimal_units(count, text):
    assert size(count) == text
