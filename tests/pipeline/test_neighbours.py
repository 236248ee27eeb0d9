"""The table of neighbours is what a literal search finds, whatever interrupts it, for the bank as it is now."""

import shutil

import numpy as np
import pytest

import pipeline.neighbours
from bench.neighbours import fill
from cache.class_tokens import unit
from cache.errors import Damaged, DptrError, WrongUse
from cache.garbage import find_garbage, remove
from cache.keys import keys_from_disk
from cache.lock import writing
from cache.memories import MemoryReader
from cache.space import Space, open_space
from cache.verify import verify
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from pipeline.neighbours import EndRows, neighbours
from tests.faults.job import copy, count_calls, files, killed, problems, quiet
from tests.helpers.files import flip
from tests.helpers.forks import Forked
from tests.helpers.pictures import picture

PICTURES = [(f"{n}.png", picture(n)) for n in range(9)]


@pytest.fixture(scope="module")
def whole(encoder, tmp_path_factory):
    """A cache with two corpora that overlap, and a bank. Not to be written to."""
    folder = tmp_path_factory.mktemp("whole")
    embed_text(folder, encoder, collect(map(str, range(150))), "one", quiet)
    embed_text(folder, encoder, collect(map(str, range(100, 300))), "two", quiet)
    embed_images(folder, encoder, PICTURES, len(PICTURES), "noise", quiet)
    return folder


@pytest.fixture
def cache(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline.neighbours, "SHARD", 40)
    monkeypatch.setattr(pipeline.neighbours, "BATCH", 16)
    return shutil.copytree(whole, tmp_path / "cache")


def find(cache, corpus, k=3, say=quiet):
    return neighbours(open_space(cache), corpus, "noise", k, say)


def tables(cache):
    space = open_space(cache)
    return [space.neighbours("noise").read(side, space.memories, space.bank("noise")) for side in ("near", "far")]


def literal(cache):
    """All products of end rows and class tokens (memories, photographs), one memory after another."""
    space = open_space(cache)
    reader, projection = MemoryReader(space.memories), space.constants()["text_projection"]
    class_rows = space.bank("noise").features()[:, 0].astype(np.float64)
    class_rows /= np.linalg.norm(class_rows, axis=1, keepdims=True)
    end_rows = {"compact": lambda m: m[-1] @ projection, "shared": lambda m: m[-1], "full": lambda m: m[0]}
    memories = (reader.gather(np.array([n]))[0].astype(np.float64) for n in range(len(reader.length)))
    rows = np.array([end_rows[space.fingerprint.layout](memory) for memory in memories])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) @ class_rows.T


@pytest.mark.parametrize("layout", ["compact", "shared", "full"])
def test_tables_are_what_a_literal_search_finds(layout, tmp_path):
    encoder = Encoder("tiny", "untrained:1", precision="fp32", layout=layout)
    embed_text(tmp_path, encoder, collect(map(str, range(60))), "numbers", quiet)
    embed_images(tmp_path, encoder, PICTURES, len(PICTURES), "noise", quiet)
    done = find(tmp_path, "numbers", 4)
    assert (done.memories, done.new, done.k, done.searches, done.recall) == (60, 60, 4, ["exact"] * 2, [1, 1])
    near, far = tables(tmp_path)
    assert near.dtype == far.dtype == np.int32
    assert near.shape == far.shape == (60, 4)
    products = literal(tmp_path)
    ordered = np.sort(products, axis=1)
    assert np.allclose(np.take_along_axis(products, near, 1), ordered[:, ::-1][:, :4], atol=1e-5)
    assert np.allclose(np.take_along_axis(products, far, 1), ordered[:, :4], atol=1e-5)


def test_rows_are_those_of_memories_whichever_corpus_comes_first(cache, tmp_path):
    other = shutil.copytree(cache, tmp_path / "other")
    for folder, order in ((cache, ("one", "two")), (other, ("two", "one"))):
        assert sum(find(folder, corpus).new for corpus in order) == 300
        assert find(folder, "one", None).new == 0
    assert all((a == b).all() for a, b in zip(tables(cache), tables(other), strict=True))


def test_memories_without_a_row_say_so(cache):
    find(cache, "one")
    near, _ = tables(cache)
    assert near.shape == (300, 3)
    assert (near[:150] >= 0).all()
    assert (near[150:] == -1).all()


def test_bank_that_grew_makes_the_table_anew(cache, encoder, say):
    find(cache, "one")
    more = [(f"{n}.png", picture(n)) for n in range(20, 25)]
    embed_images(cache, encoder, more, None, "noise", quiet)
    with pytest.raises(DptrError, match="found among 9 other photographs than the 14 that it has now: run dptr neigh"):
        tables(cache)
    assert find(cache, "one", None, say).new == 150
    assert any("made anew: bank 'noise' had a table for 9 photographs, 3 a memory" in line for line in say.lines)
    near, _ = tables(cache)
    assert near.max() > 8


def test_index_must_cover_the_bank(cache):
    with pytest.raises(DptrError, match="bank 'noise' has no table of neighbours: run dptr neighbours"):
        tables(cache)
    (path,) = cache.rglob("index.faiss")
    path.unlink()
    with pytest.raises(DptrError, match="index of bank 'noise' covers 0 of its 9 photographs: run the embed-images"):
        find(cache, "one")
    with pytest.raises(WrongUse, match="no bank 'nosie'"):
        neighbours(open_space(cache), "one", "nosie", 3, quiet)


def test_damage_is_named_and_made_again(cache):
    find(cache, "two")
    before = files(cache)
    shards = sorted(cache.glob("*/neighbours/noise/*.h5"))
    assert len(shards) == 5
    flip(shards[1])
    (problem,) = verify(cache, None, True, lambda n: None).problems
    assert problem.path.endswith("neighbours/noise/00001.h5")
    assert problem.remedy == "dropped; neighbours makes it again"
    find(cache, "two", None)
    assert files(cache) == before


def test_photographs_that_are_not_there_are_refused(cache):
    find(cache, "one")
    table = open_space(cache).neighbours("noise")
    first, *rest = table.shards()
    wrong, keys, made_for = np.full((40, 3), 9, np.int32), keys_from_disk(first.read("keys")), table.made_for
    table.replace([shard.entry for shard in rest], [table.shard_of(keys, wrong, wrong, made_for)])
    with pytest.raises(Damaged, match="names photographs that bank 'noise' does not have"):
        tables(cache)


def test_garbage_is_what_has_no_bank_or_no_memory(cache):
    for corpus in ("one", "two"):
        find(cache, corpus)
    space = open_space(cache)
    with writing(space.folder):
        assert not find_garbage(space)
        found = find_garbage(space, corpora=["two"])
        assert [(table.name, len(kept)) for table, kept in found.tables] == [("noise", 4)]
        assert found.bytes > 0
        remove(found)
    near, _ = tables(cache)
    assert near.shape == (150, 3)
    assert (near >= 0).all()
    space = open_space(cache)
    with writing(space.folder):
        found = find_garbage(space, banks=["noise"])
        assert sorted(path.parent.name for path in found.folders) == ["banks", "neighbours"]
        remove(found)
    assert open_space(cache).neighbour_tables() == []


@pytest.fixture(scope="module", params=["ivf", "hnsw", "pq"])
def indexed(request, tmp_path_factory):
    """A kind of index, and the folder of a space of 3,000 photographs with it. Not to be written to.

    And of 300 words around the same means, on sides that lie apart.
    """
    space = fill(tmp_path_factory.mktemp("indexed") / "apart", 3000, 300, 32)
    space.bank("photos").write_index(request.param)
    return request.param, space.folder


@pytest.mark.parametrize("walked", [0, 1 << 20])
def test_where_cells_do_not_help_all_are_compared(indexed, walked, tmp_path, say, monkeypatch):
    """Whatever the index, nearly all that is near is found, and nearly all that is far."""
    monkeypatch.setattr(pipeline.neighbours, "WALKED", walked)
    kind, folder = indexed
    apart = Space(shutil.copytree(folder, tmp_path / "apart"))
    bank = apart.bank("photos")
    done = neighbours(apart, "words", "photos", 10, say)
    assert min(done.recall) >= 0.95
    if kind == "pq" or (kind == "ivf" and walked):  # codes lose too much; or too many cells would be walked through
        assert done.searches == ["exact", "exact"]
    elif kind == "ivf":
        assert done.searches == ["ivf", "ivf"]
    queries = EndRows(apart)(np.arange(300))
    for side, sign in (("near", 1), ("far", -1)):
        found = apart.neighbours("photos").read(side, apart.memories, bank)
        true = np.argsort(-(sign * queries @ unit(bank.features()[:, 0]).T), axis=1)[:, :10]
        assert np.mean([len(set(a) & set(b)) for a, b in zip(found.tolist(), true.tolist(), strict=True)]) > 9.3
    assert sum("recall@10" in line for line in say.lines) == 2


def test_killed_command_goes_on_to_the_same_bytes(whole, tmp_path):
    """Killed at each of its system calls in turn, until it is through; in a process of its own, because it forks."""
    done = Forked(tmp_path / "kills", _kills, whole, tmp_path).wait()
    assert done.returncode == 0, done.stderr


def _kills(whole, folder):
    pipeline.neighbours.SHARD, pipeline.neighbours.BATCH = 40, 16
    expected, cut = shutil.copytree(whole, folder / "expected"), folder / "cut"
    find(expected, "two")
    calls, kills = count_calls(lambda: find(copy(whole, cut), "two")), 0
    for call in range(0, calls, 4):
        copy(whole, cut)
        kills += killed(lambda: find(cut, "two"), call=call)
        assert not problems(cut)
        find(cut, "two")
        assert files(cut) == files(expected), call
    assert kills > 10
