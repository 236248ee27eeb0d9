"""Memories are found by key and gathered in any order, whatever shards they lie in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import Damaged, DptrError
from cache.keys import KeyTable, as_keys, key_bytes, keys_from_disk, keys_to_disk
from cache.memories import Memories, MemoryReader, key_of
from tests.helpers.fingerprint import ONE


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
        Memories(folder, ONE).add(as_keys(keys), np.concatenate(states), np.array(lengths))
    memories = Memories(folder, ONE)
    wanted = random.choice(len(stored), size=12)
    keys = [list(stored)[n] for n in wanted]
    numbers = memories.find(as_keys(keys))
    assert numbers.tolist() == wanted.tolist()
    states, lengths = MemoryReader(memories).gather(numbers)
    assert lengths.tolist() == [len(stored[k]) for k in keys]
    assert (states == np.concatenate([stored[k] for k in keys])).all()


def test_unknown_keys_are_not_found(tmp_path):
    assert Memories(tmp_path, ONE).find(as_keys([key_of([1])])).tolist() == [-1]
    Memories(tmp_path, ONE).add(as_keys([key_of([1])]), np.zeros((1, 2), np.float16), np.array([1]))
    assert Memories(tmp_path, ONE).find(as_keys([key_of([1]), key_of([2])])).tolist() == [0, -1]


@given(st.lists(st.binary(min_size=16, max_size=16), min_size=1))
def test_keys_survive_the_disk_whatever_their_bytes(keys):
    """A key may end in zero bytes, which numpy's byte strings hide but still compare."""
    array = keys_from_disk(keys_to_disk(as_keys(keys)))
    assert key_bytes(array) == keys


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_value_that_is_not_finite_is_refused(tmp_path, bad):
    with pytest.raises(DptrError, match="float16"):
        Memories(tmp_path, ONE).add(as_keys([key_of([1])]), np.full((1, 2), bad, np.float16), np.array([1]))
    assert list(tmp_path.iterdir()) == []


def test_no_memories_is_an_error(tmp_path):
    with pytest.raises(DptrError, match="holds no memories"):
        MemoryReader(Memories(tmp_path, ONE))


@given(
    stored=st.sets(st.binary(min_size=16, max_size=16), min_size=1, max_size=40),
    same_half=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_table_finds_as_a_dictionary_does(stored, same_half, seed, tmp_path_factory):
    """Even if keys share their first half, which never happens by chance."""
    keys = [*sorted(stored), *(b"\7" * 8 + bytes([n]) * 8 for n in range(same_half))]
    np.random.default_rng(seed).shuffle(keys)
    keys = list(dict.fromkeys(keys))
    memories = Memories(tmp_path_factory.mktemp("table"), ONE)
    for part in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
        if part:
            memories.add(as_keys(part), np.zeros((len(part), 4), np.float16), np.ones(len(part), np.int64))
    table = KeyTable(memories)
    absent = [b"\7" * 16, *(bytes([n % 256]) * 16 for n in range(5, 20))]
    asked = [*keys, *absent]
    where = {key: n for n, key in enumerate(keys)}
    assert table.find(as_keys(asked)).tolist() == [where.get(key, -1) for key in asked]


@pytest.mark.parametrize("width", [4, 6, 7])
def test_flipped_bit_of_a_state_is_noticed_when_it_is_read(tmp_path, width):
    """Whatever the width."""
    random = np.random.default_rng(0)
    states = random.normal(size=(12, width)).astype(np.float16)
    Memories(tmp_path, ONE).add(as_keys([key_of([n]) for n in range(4)]), states, np.array([1, 5, 2, 4]))
    path = tmp_path / "00000.h5"
    memories, data = Memories(tmp_path, ONE), path.read_bytes()
    offset = memories.entries[0].datasets["states"].offset
    for bit in range(0, states.nbytes * 8, 5):
        changed = bytearray(data)
        changed[offset + bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        hit = int(np.searchsorted([1, 6, 8, 12], bit // 8 // (2 * width), side="right"))
        with pytest.raises(Damaged, match="00000.h5 is damaged: a memory does not match its check"):
            MemoryReader(memories).gather(np.array([hit, (hit + 1) % 4]))
        MemoryReader(memories).gather(np.array([(hit + 1) % 4, (hit + 2) % 4]))


def test_changes_that_cancel_in_a_sum_are_noticed(tmp_path):
    """Two flipped bits, swapped values, swapped rows."""
    states = np.arange(24, dtype=np.float16).reshape(6, 4)
    Memories(tmp_path, ONE).add(as_keys([key_of([1]), key_of([2])]), states, np.array([4, 2]))
    path, memories = tmp_path / "00000.h5", Memories(tmp_path, ONE)
    data, offset = path.read_bytes(), memories.entries[0].datasets["states"].offset
    for rows in ([1, 0, 2, 3, 4, 5], [0, 1, 3, 2, 4, 5]):
        swapped = data[:offset] + states[rows].tobytes() + data[offset + states.nbytes :]
        path.write_bytes(swapped)
        with pytest.raises(Damaged, match="a memory does not match its check"):
            MemoryReader(memories).gather(np.array([0]))
    for bit in range(64):
        one, other = bytearray(data), int.from_bytes(data[offset : offset + 8], "little") >> bit & 1
        for word in range(1, 4):
            place = offset + 8 * word
            if int.from_bytes(data[place : place + 8], "little") >> bit & 1 != other:
                one[offset + bit // 8] ^= 1 << bit % 8
                one[place + bit // 8] ^= 1 << bit % 8
                path.write_bytes(one)
                with pytest.raises(Damaged, match="a memory does not match its check"):
                    MemoryReader(memories).gather(np.array([0]))
                break


def test_opening_reads_no_states(tmp_path):
    """The states of a shard are overwritten, and the memories are still opened and found."""
    Memories(tmp_path, ONE).add(as_keys([key_of([1])]), np.ones((3, 4), np.float16), np.array([3]))
    memories = Memories(tmp_path, ONE)
    place = memories.entries[0].datasets["states"]
    with (tmp_path / "00000.h5").open("r+b") as file:
        file.seek(place.offset)
        file.write(b"\xff" * 24)
    assert memories.find(as_keys([key_of([1])])).tolist() == [0]
