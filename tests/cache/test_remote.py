"""What is read of a cache elsewhere is what was written, whatever the network does; and comes over once."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from cache.errors import DptrError, WrongUse
from cache.info import describe
from cache.lock import writing
from cache.memories import MemoryReader
from cache.remote import absolute, local, remote_of, shown, url_of
from cache.space import Space, open_space, space_with, spaces
from tests.helpers.files import flip
from tests.helpers.fingerprint import ONE
from tests.helpers.stores import Shaky

EACH, SHARDS = 200, 3  # memories, as in conftest
pytestmark = pytest.mark.usefixtures("store")


def everything(cache):
    """States and labels, through all that training uses."""
    space = open_space(cache)
    corpus = space.existing_corpus("words")
    numbers = space.memory_numbers(corpus)
    states, lengths = MemoryReader(space.memories).gather(numbers)
    return corpus.labels(), corpus.counts().tolist(), states.tobytes(), lengths.tolist(), space.constants()["prefix"]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_reading_from_elsewhere_equals_reading_from_disk(here, there):
    assert same(everything(there), everything(here))
    assert [s.name for s in spaces(there)] == [s.name for s in spaces(here)]
    assert space_with(there, None, ["words"], [], print).digest == ONE.digest


@pytest.mark.parametrize("numbers", [[5], [0, 0, 599], [350, 2, 350, 3, 4, 199, 200, 201], list(range(599, -1, -1))])
def test_any_memories_in_any_order(here, there, numbers):
    ours, theirs = (MemoryReader(open_space(one).memories) for one in (here, there))
    for a, b in zip(ours.gather(np.array(numbers)), theirs.gather(np.array(numbers)), strict=True):
        assert a.dtype == b.dtype
        assert (a == b).all()


def test_each_byte_comes_over_once(here, there):
    reader = MemoryReader(open_space(there).memories)
    before = Shaky.sent["h5"]
    everyone = np.arange(SHARDS * EACH)
    for opened in (reader, reader, MemoryReader(open_space(there).memories)):  # the last as another process would
        opened.gather(everyone)
        assert Shaky.sent["h5"] - before == reader.nbytes(everyone)


def test_a_tenth_of_all_answers_wrong_and_nothing_wrong_is_read(here, there, monkeypatch):
    expected = everything(here)
    monkeypatch.setattr(Shaky, "every", 10)
    monkeypatch.setenv("DPTR_DISK_SIZE", "0")  # so that all comes over each time
    read = 0
    for _ in range(6):
        with suppress(DptrError):  # flipped twice in a row
            assert same(everything(there), expected)
            read += 1
    assert read
    assert min(Shaky.sent[kind] for kind in ("error", "short", "flipped")) > 5


def test_object_that_is_damaged_is_named(here, there):
    (name,) = (n for n in Shaky.store if n.endswith("memories/00001.h5"))
    data = bytearray(Shaky.store[name].getvalue())
    reader = MemoryReader(open_space(there).memories)
    place = reader._shards[1].entry.datasets["states"]
    data[place.offset + 7] ^= 4
    Shaky().pipe_file(name, bytes(data))
    assert len(reader.gather(np.arange(EACH))[1]) == EACH
    with pytest.raises(DptrError, match="shaky://bucket/cache/.*/memories/00001.h5 does not match its checksum, and"):
        reader.gather(np.array([EACH]))
    Shaky().rm(name)
    with pytest.raises(DptrError, match="memories/00001.h5 cannot be read .*: check the URL, the network and"):
        reader.gather(np.array([2 * EACH - 1]))


def test_part_that_is_damaged_on_the_local_disk_comes_over_again(here, there, tmp_path):
    expected = everything(here)
    assert same(everything(there), expected)
    for path in (tmp_path / "disk").rglob("*-*"):
        flip(path)
    assert same(everything(there), expected)


def test_small_file_that_is_damaged_is_named(there):
    (name,) = (n for n in Shaky.store if n.endswith("memories/manifest.jsonl"))
    data = bytearray(Shaky.store[name].getvalue())
    data[20] ^= 1
    Shaky().pipe_file(name, bytes(data))
    with pytest.raises(DptrError, match="memories/manifest.jsonl does not match its checksum, and was read twice"):
        open_space(there)


def test_store_that_is_down_is_one_sentence(there, monkeypatch):
    monkeypatch.setattr(Shaky, "every", 1)
    monkeypatch.setattr(Shaky, "kinds", ["error"])
    with pytest.raises(DptrError, match=r"cannot be read, tried 6 times \(the store hung up\): check the URL"):
        open_space(there)
    with pytest.raises(DptrError, match="nowhere://x cannot be opened .*: s3://, gs:// and az:// need pip install"):
        open_space(Path("nowhere://x"))


def test_what_needs_a_disk_says_so(there):
    space = open_space(there)
    for use in (lambda: next(space.memories.shards()).map("states"), lambda: writing(space.folder).__enter__()):
        with pytest.raises(
            WrongUse, match="needs a cache on disk, and shaky://bucket/cache.* is elsewhere: get it with"
        ):
            use()
    with pytest.raises(WrongUse, match="there is no corpus 'x' in shaky://bucket/cache/vit"):
        space.existing_corpus("x")
    with pytest.raises(WrongUse, match="shaky://bucket/none holds no encoder's space"):
        open_space(Path("shaky://bucket/none"))
    with pytest.raises(WrongUse, match="there is no cache in shaky://bucket/none: make one"):
        describe(Path("shaky://bucket/none"))
    assert describe(Path("shaky://bucket/cache"))["cache"] == "shaky://bucket/cache"


def test_names_of_caches():
    assert url_of(Path("hf://datasets/me/words")) == "hf://datasets/me/words"
    assert absolute(Path("s3://bucket/cache")) == Path("s3://bucket/cache")
    assert absolute(Path("cache")).is_absolute()
    assert (shown(Path("s3://bucket/cache")), shown(Path("some/cache"))) == ("s3://bucket/cache", "some/cache")
    assert local(Path("some/cache")) == Path("some/cache")
    assert remote_of(Path("some/cache")) is None
    assert [url_of(Path(name)) for name in ("cache", "/data/s3:/x", "C:/cache", "s3:")] == [None] * 4


def test_a_reader_keeps_to_what_it_found(here, there):
    """The cache as it was when it was opened, while another grows."""
    before = open_space(there)
    (name,) = (n for n in Shaky.store if n.endswith("corpora/words/manifest.jsonl"))
    lines = Shaky.store[name].getvalue().splitlines(keepends=True)
    Shaky().pipe_file(name, b"".join(lines[:1]))
    assert before.corpus("words").rows == SHARDS * EACH
    assert open_space(there).corpus("words").rows == EACH
    assert Space(before.folder).digest == ONE.digest
