"""A run that is stopped and goes on with other ranks takes the batches of one process, whatever reads them."""

from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cache.memories
import train.data.readers
from cache.memories import MemoryReader
from tests.train.data.test_readers import CPU, NAMES, labelled, stored
from train.data.plan import Plan
from train.data.readers import open_reader
from train.data.word_batches import MemoryLoader, batches
from train.earlier import Stretch, planned

LENGTHS = [[1, 3, 2, 4, 1] * 4, [2, 5] * 10, [3] * 9]


class Loader(MemoryLoader):
    """Of memories that have no space, as they are stored."""

    def __init__(self, reader: MemoryReader) -> None:
        self._zero, self._layout, self.reader, self.width, self.device = False, "shared", reader, reader.width, CPU
        self._prefix = torch.empty(0, reader.width)


@pytest.fixture(scope="module")
def memories(tmp_path_factory):
    """A reader of 49 memories in three shards, and the words of 47 of them."""
    return stored(tmp_path_factory.mktemp("memories"), LENGTHS), labelled(range(1, 48))


def taken(loader, reader, batch, earlier, ranks, start, steps):
    """What `ranks` ranks together get in `steps` steps: for each, the sorted labels with the sums of their memories."""
    parts = []
    for rank in range(ranks):
        run = batches(loader, reader, planned(Plan(batch, 5, rank, ranks), earlier), start)
        parts.append(list(islice(run, steps)))
        run.close()
    found = []
    for shares in zip(*parts, strict=True):
        assert {share.number for share in shares} == {start + len(found)}
        words = [(label, round(float(memory.sum()), 3)) for share in shares for label, memory in pairs(share)]
        found.append(sorted(words))
    return found


def pairs(share):
    return zip(share.labels.labels, share.memory, strict=True) if len(share) else ()


@given(
    name=st.sampled_from(NAMES),
    stops=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 12)), min_size=1, max_size=4),
    batch=st.integers(1, 20),
    block=st.integers(1, 120),
    window=st.integers(1, 600),
)
@settings(max_examples=30)
def test_any_ranks_and_any_stops_give_the_batches_of_one_process(memories, name, stops, batch, block, window):
    """`stops` are the ranks of each start, and the steps that it takes before it is stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache.memories, "BLOCK", block)
        patch.setattr(train.data.readers, "WINDOW_BYTES", window)
        stored, words = memories
        loader, reader = Loader(stored), open_reader(name, stored, words, CPU)
        whole = taken(loader, reader, batch, (), 1, 0, sum(steps for _, steps in stops))
        found = []
        for ranks, steps in stops:
            earlier = [Stretch(len(found), len(found), 99, batch, None, 9, 3)] if found else []
            found += taken(loader, reader, batch, earlier, ranks, len(found), steps)
        assert found == whole
