"""gc removes what no corpus points at, and nothing else."""

import numpy as np
import pytest

from cache.errors import Damaged, WrongUse
from cache.garbage import find_garbage, remove
from cache.manifest import unlisted
from cache.space import open_space
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.labels import collect
from tests.faults.job import everything, files
from tests.helpers.files import flip
from tests.helpers.pictures import picture


@pytest.fixture
def cache(tmp_path, encoder, monkeypatch):
    """Corpora of 0..99 and 50..149 in several shards, and a bank."""
    monkeypatch.setattr("pipeline.embed_text.SHARD_BYTES", 10_000)
    embed_text(tmp_path, encoder, collect(map(str, range(100))), "low", print)
    embed_text(tmp_path, encoder, collect(map(str, range(50, 150))), "high", print)
    embed_images(tmp_path, encoder, [("0.png", picture(0))], 1, "noise", print)
    return tmp_path


def test_nothing_goes_that_is_used(cache):
    before = files(cache)
    found = find_garbage(open_space(cache))
    assert not found
    assert found.bytes == 0
    remove(found)
    assert files(cache) == before


def test_memories_of_a_dropped_corpus_go_and_the_rest_keeps_its_bits(cache):
    before = everything(cache)
    found = find_garbage(open_space(cache), corpora=["low"])
    assert found.memories == 50
    assert 0 < found.bytes < sum(p.stat().st_size for p in cache.glob("*/memories/*.h5")) + 20_000
    remove(found)
    space = open_space(cache)
    assert space.corpora() == ["high"]
    assert space.memories.rows == 100
    assert set(space.memories.find(space.corpus("high").keys())) == set(range(100))
    after = everything(cache)
    assert all(after[name] == before[name] for name in after)
    assert not find_garbage(open_space(cache))


def test_space_is_given_back(cache):
    shards = sum(p.stat().st_size for p in cache.glob("*/memories/*.h5"))
    remove(find_garbage(open_space(cache), corpora=["low", "high"], banks=["noise"]))
    space = open_space(cache)
    assert (space.corpora(), space.banks(), space.memories.rows) == ([], [], 0)
    assert not list(cache.glob("*/memories/*.h5"))
    assert shards > 0


def test_dropped_words_can_be_embedded_again(cache, encoder):
    before = everything(cache)
    remove(find_garbage(open_space(cache), corpora=["low"]))
    done = embed_text(cache, encoder, collect(map(str, range(100))), "low", print)
    assert (done.new_memories, done.known_memories) == (50, 50)
    after = everything(cache)
    for name, value in before.items():
        if name.endswith(" states"):
            a, b = (np.frombuffer(x[name][0], np.float16) for x in (before, after))
            assert np.allclose(a, b, atol=8e-3)
        else:
            assert after[name] == value


def test_files_that_were_never_finished_go_and_others_stay(cache):
    memories = open_space(cache).folder / "memories"
    for name in ("00099.h5", "00100.h5.tmp", "manifest.jsonl.tmp", "notes.txt", "my.h5"):
        (memories / name).write_bytes(b"x")
    found = find_garbage(open_space(cache))
    assert [p.name for p in found.files] == ["00100.h5.tmp", "manifest.jsonl.tmp", "00099.h5"]
    assert found.bytes == 3
    remove(found)
    assert {"notes.txt", "my.h5"} <= {p.name for p in memories.iterdir()}
    assert unlisted(memories) == []


def test_what_a_damaged_corpus_points_at_is_not_guessed(cache):
    flip(next(cache.glob("*/corpora/low/*.h5")))
    before = files(cache)
    with pytest.raises(Damaged, match="corpora/low"):
        find_garbage(open_space(cache))
    assert files(cache) == before


def test_only_what_exists_can_be_dropped(cache):
    with pytest.raises(WrongUse, match="no corpus 'x'"):
        find_garbage(open_space(cache), corpora=["x"])
    with pytest.raises(WrongUse, match="no bank 'x'"):
        find_garbage(open_space(cache), banks=["x"])
