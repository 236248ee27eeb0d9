"""Three readers give the same memories for the same words, each word once an epoch, and notice changes on disk."""

import threading
from collections import Counter
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cache.memories
import train.data.readers
from cache.errors import Damaged, WrongUse
from cache.keys import as_keys
from cache.memories import Memories, MemoryReader, key_of
from cache.space import open_space
from cache.transfer import push
from models.charset import Charset
from tests.helpers.fingerprint import ONE
from tests.helpers.stores import Shaky
from train.data.plan import Plan
from train.data.readers import Resident, Streamed, choose_reader, open_reader
from train.data.words import Words

CPU = torch.device("cpu")
NAMES = ("resident", "mapped", "streamed")
WIDTH = 3


def stored(folder, shards, seed=0):
    """Memories of several lengths, by shard."""
    random = np.random.default_rng(seed)
    memories = Memories(folder, ONE)
    for number, lengths in enumerate(shards):
        keys = as_keys([key_of([number, n]) for n in range(len(lengths))])
        states = random.normal(size=(sum(lengths), WIDTH)).astype(np.float16)
        memories.add(keys, states, np.array(lengths))
    return MemoryReader(Memories(folder, ONE))


def one_by_one(folder):
    """Every memory of the space, read with h5py alone."""
    found = []
    for path in sorted(folder.glob("*.h5")):
        with h5py.File(path) as file:
            offsets = file["offsets"][:]
            found += [file["states"][a:b] for a, b in pairwise(offsets)]
    return found


def labelled(memories, seed=0):
    """Words of 1 to 9 letters for memories, each of its own."""
    random = np.random.default_rng(seed)
    charset = Charset("abc")
    labels = ["".join(random.choice(list("abc"), random.integers(1, 10))) for _ in memories]
    return Words(charset.rows(labels, 9), np.asarray(memories, np.int64), charset)


@pytest.fixture
def small(monkeypatch):
    """Blocks and windows so small that a few memories fill many."""

    def sizes(block, window):
        monkeypatch.setattr(cache.memories, "BLOCK", block)
        monkeypatch.setattr(train.data.readers, "WINDOW_BYTES", window)

    return sizes


@given(
    shards=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=30), min_size=1, max_size=4),
    block=st.integers(1, 200),
    window=st.integers(1, 500),
    batch=st.integers(1, 7),
    ranks=st.integers(1, 3),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_all_readers_give_what_is_stored(shards, block, window, batch, ranks, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("memories")
    reader = stored(folder, shards)
    reference = one_by_one(folder)
    number = st.integers(0, len(reference) - 1)
    words = labelled(data.draw(st.lists(number, min_size=1, max_size=60)))  # some come twice, some never
    epoch = data.draw(st.integers(0, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache.memories, "BLOCK", block)
        patch.setattr(train.data.readers, "WINDOW_BYTES", window)
        for name in NAMES:
            seen = Counter()
            one = open_reader(name, reader, words, CPU)
            for rank in range(ranks):
                plan = Plan(batch, 0, rank, ranks)
                batches = list(one.epoch(plan, epoch))
                assert len(batches) == plan.count(len(words))
                for part, states, lengths in batches:
                    assert states.dtype == torch.float16
                    expected = [reference[n] for n in part.memories]
                    assert lengths.tolist() == list(map(len, expected))
                    assert (states.numpy() == np.concatenate([*expected, states[:0]])).all()
                    seen.update(zip(part.labels, part.memories.tolist(), strict=True))
                start = data.draw(st.integers(0, len(batches)))
                again = list(one.epoch(plan, epoch, start))
                assert [b[0].memories.tolist() for b in again] == [b[0].memories.tolist() for b in batches[start:]]
                assert all((a[1] == b[1]).all() for a, b in zip(again, batches[start:], strict=True))
                taken = epoch * len(batches) + start
                assert one.place(plan, taken) == divmod(taken, len(batches))
            assert seen == Counter(zip(words.labels, words.memories.tolist(), strict=True))


def test_streamed_words_come_from_many_blocks_and_in_another_order_each_epoch(tmp_path, small):
    small(20 * WIDTH * 2, 400 * WIDTH * 2)
    reader = stored(tmp_path, [[2] * 1000] * 2)
    words = labelled(range(2000))
    streamed = Streamed(reader, words)
    epochs = [[part.memories for part, _, _ in streamed.epoch(Plan(16, 0), number)] for number in (0, 1)]
    blocks = [len(set((part // 10).tolist())) for part in epochs[0]]  # ten memories are a block, and 20 blocks a window
    assert np.mean(blocks) > 8
    spread = [np.ptp(part) for part in epochs[0]]
    assert np.mean(spread) > 1200
    assert [p.tolist() for p in epochs[0]] != [p.tolist() for p in epochs[1]]
    beside = [{n for part in epoch if 0 in part for n in part.tolist()} for epoch in epochs]
    assert len(beside[0] & beside[1]) < 8


def test_what_is_skipped_is_not_read(tmp_path, small, monkeypatch):
    small(60, 600)
    reader = stored(tmp_path, [[2] * 200] * 2)
    streamed = Streamed(reader, labelled(range(400)))
    read, read_block = [], reader.read_block

    def noted(numbers, out):
        read.extend(numbers.tolist())
        read_block(numbers, out)

    monkeypatch.setattr(reader, "read_block", noted)
    used = [n for part, _, _ in streamed.epoch(Plan(7, 0), 0, start=31) for n in part.memories.tolist()]
    assert sorted(read) == sorted(used)
    assert len(used) < 400 - 30 * 7


@pytest.mark.parametrize("name", NAMES)
def test_flipped_bit_stops_every_reader(name, tmp_path, small):
    small(60, 600)
    reader = stored(tmp_path, [[1, 3, 2] * 20] * 2)
    path = tmp_path / "00001.h5"
    place = Memories(tmp_path, ONE).entries[1].datasets["states"]
    data = bytearray(path.read_bytes())
    data[place.offset + 5 * WIDTH * 2] ^= 4  # row 5: the third memory of the second shard
    path.write_bytes(data)

    def whole(words):
        return list(open_reader(name, reader, words, CPU).epoch(Plan(4, 0), 0))

    with pytest.raises(Damaged, match="00001.h5 is damaged: a memory does not match its check"):
        whole(labelled(range(120)))
    assert len(whole(labelled([n for n in range(120) if n != 62]))) == 30  # nobody reads it
    data[place.offset + 5 * WIDTH * 2] ^= 4
    path.write_bytes(data[: place.offset + 40])
    if name != "mapped":  # a mapped file must not be cut
        with pytest.raises(Damaged, match="00001.h5 is damaged"):
            whole(labelled(range(120)))


def test_file_that_is_gone_is_one_sentence(tmp_path):
    reader = stored(tmp_path, [[1, 2]])
    (tmp_path / "00000.h5").unlink()
    with pytest.raises(Damaged, match="00000.h5 is damaged: it cannot be read"):
        Resident(reader, labelled([0, 1]), CPU)


def test_an_epoch_that_is_left_early_leaves_no_thread(tmp_path, small):
    small(60, 600)
    before = threading.active_count()
    epoch = Streamed(stored(tmp_path, [[2] * 400]), labelled(range(400))).epoch(Plan(4, 0), 0)
    next(epoch)
    epoch.close()
    assert threading.active_count() == before


def test_size_chooses_the_reader(monkeypatch):
    monkeypatch.setattr(train.data.readers, "free_memory", lambda device: 10_000_000_000)
    monkeypatch.setattr(train.data.readers, "memory", lambda: 30_000_000_000)
    assert choose_reader("auto", 5_000_000_000, CPU)[0] == "resident"
    assert choose_reader("auto", 5_000_000_002, CPU)[0] == "mapped"
    assert choose_reader("auto", 15_000_000_002, CPU)[0] == "streamed"
    assert "15 GB of states" in choose_reader("auto", 15_000_000_002, CPU)[1]
    assert choose_reader("mapped", 1, CPU) == ("mapped", "as --reader says")


@pytest.mark.gpu
def test_readers_agree_on_a_gpu(tmp_path):
    gpu = torch.device("cuda")
    words, reader = labelled(range(400)), stored(tmp_path, [[1, 3, 2, 4] * 50] * 2)
    reference = one_by_one(tmp_path)
    for name in NAMES:
        for part, states, _ in open_reader(name, reader, words, gpu).epoch(Plan(16, 0), 0):
            assert states.device.type == ("cuda" if name == "resident" else "cpu")
            assert (states.cpu().numpy() == np.concatenate([reference[n] for n in part.memories])).all()


def test_a_cache_elsewhere_gives_the_same_batches_whatever_goes_wrong(tmp_path, small, monkeypatch):
    """A fifth of the answers are errors, too short or have a flipped bit; every kept part comes over once."""
    space = tmp_path / "cache" / ONE.folder
    local = stored(space / "memories", [[1, 3, 2] * 20] * 2)
    (space / "space.json").write_bytes(ONE.to_json())
    monkeypatch.setenv("DPTR_DISK", str(tmp_path / "disk"))
    monkeypatch.setattr("cache.objects.PAUSE", 0)
    Shaky.store.clear()
    push(tmp_path / "cache", Path("shaky://readers"), None).run(lambda count: None)
    small(60, 600)
    words = labelled([n for n in range(120) if n % 7])  # held-out words lie between
    remote = MemoryReader(open_space(Path("shaky://readers")).memories)
    monkeypatch.setattr(Shaky, "every", 5)
    Shaky.sent.clear()
    for name in ("streamed", "resident"):
        for number in range(2):
            one, other = (open_reader(name, r, words, CPU).epoch(Plan(4, 0), number) for r in (local, remote))
            for ours, theirs in zip(one, other, strict=True):
                assert ours[0].memories.tolist() == theirs[0].memories.tolist()
                assert torch.equal(ours[1], theirs[1])
    assert Shaky.sent["h5"] < 1.3 * local.nbytes(np.arange(120))
    assert min(Shaky.sent[kind] for kind in ("error", "short", "flipped")) > 0
    assert choose_reader("auto", 1, CPU, remote=True)[0] == "resident"
    assert choose_reader("auto", 1 << 60, CPU, remote=True)[0] == "streamed"
    with pytest.raises(WrongUse, match="--reader mapped reads at random, and the cache is elsewhere"):
        choose_reader("mapped", 1, CPU, remote=True)
