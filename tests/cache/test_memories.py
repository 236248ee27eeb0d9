"""Memories are found by key and gathered in any order, whatever shards they lie in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import DptrError
from cache.memories import Memories, MemoryReader, as_keys, key_of, keys_from_disk, keys_to_disk


@given(
    shards=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=8), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_gather_equals_a_dictionary(shards, seed, tmp_path_factory):
    random = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("memories")
    stored = {}
    for number, lengths in enumerate(shards):
        keys = [key_of([number, n]) for n in range(len(lengths))]
        states = [random.normal(size=(length, 3)).astype(np.float16) for length in lengths]
        stored |= dict(zip(keys, states, strict=True))
        Memories(folder).add(as_keys(keys), np.concatenate(states), np.array(lengths))
    memories = Memories(folder)
    wanted = random.choice(len(stored), size=12)
    keys = [list(stored)[n] for n in wanted]
    numbers = memories.find(as_keys(keys))
    assert numbers.tolist() == wanted.tolist()
    states, lengths = MemoryReader(memories).gather(numbers)
    assert lengths.tolist() == [len(stored[k]) for k in keys]
    assert (states == np.concatenate([stored[k] for k in keys])).all()


def test_unknown_keys_are_not_found(tmp_path):
    memories = Memories(tmp_path)
    assert memories.find(as_keys([key_of([1])])).tolist() == [-1]
    memories.add(as_keys([key_of([1])]), np.zeros((1, 2), np.float16), np.array([1]))
    assert Memories(tmp_path).find(as_keys([key_of([1]), key_of([2])])).tolist() == [0, -1]


@given(st.lists(st.binary(min_size=16, max_size=16), min_size=1))
def test_keys_survive_the_disk_whatever_their_bytes(keys):
    """A key may end in zero bytes, which numpy's byte strings hide but still compare."""
    array = keys_from_disk(keys_to_disk(as_keys(keys)))
    assert [k.ljust(16, b"\0") for k in array.tolist()] == keys


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_value_that_is_not_finite_is_refused(tmp_path, bad):
    with pytest.raises(DptrError, match="float16"):
        Memories(tmp_path).add(as_keys([key_of([1])]), np.full((1, 2), bad, np.float16), np.array([1]))
    assert list(tmp_path.iterdir()) == []


def test_no_memories_is_an_error(tmp_path):
    with pytest.raises(DptrError, match="holds no memories"):
        MemoryReader(Memories(tmp_path))
