"""Shards are cut by bytes, and committed in order while the work goes on."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import DptrError
from pipeline.commit import committing, shards
from pipeline.stage import size


@given(sizes=st.lists(st.integers(1, 50)), limit=st.integers(1, 100))
def test_shards_hold_everything_in_order_and_are_bounded_and_full(sizes, limit):
    found = list(shards(iter(sizes), lambda item: item, limit))
    assert [item for shard in found for item in shard] == sizes
    assert all(sum(shard) <= limit or len(shard) == 1 for shard in found)
    for shard, after in pairwise(found):
        assert sum(shard) + after[0] > limit


class Committed:
    """Stands in for a collection: takes images in order, and is slow for some."""

    def __init__(self, refused=()):
        self.done, self.refused = [], refused

    def commit(self, image):
        time.sleep(0.002 * (image % 3))
        if image in self.refused:
            raise DptrError("the disk is full")
        self.done.append(image)


def commit_all(collection, items, make=lambda n: n):
    with committing(collection) as commit:
        for n in items:
            commit(make, n)
            assert len(collection.done) >= n - 2  # at most two behind


def test_commits_come_in_order_and_are_done_at_the_end():
    collection = Committed()
    commit_all(collection, range(30))
    assert collection.done == list(range(30))


@pytest.mark.parametrize("count", [4, 5, 6, 30])
def test_nothing_is_committed_after_what_failed(count):
    """Even if the next shard is already made: it would take the number of the one that failed."""
    collection = Committed(refused=[3])
    with pytest.raises(DptrError, match="the disk is full"):
        commit_all(collection, range(count))
    assert collection.done == [0, 1, 2]


def test_shard_that_cannot_be_made_stops_the_work():
    def make(n):
        if n == 2:
            raise DptrError("a feature does not fit")
        return n

    collection = Committed()
    with pytest.raises(DptrError, match="does not fit"):
        commit_all(collection, range(9), make)
    assert collection.done == [0, 1]


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (5.3e12, "5.3 TB")])
def test_sizes_are_said_in_decimal_units(count, text):
    assert size(count) == text
