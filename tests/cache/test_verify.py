"""Verification names what is damaged; a repair drops it, so that it can be made again."""

import json

import pytest

from cache.errors import DptrError, WrongUse
from cache.lock import writing
from cache.space import open_space
from cache.verify import bytes_listed, verify
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.labels import collect
from tests.faults.job import everything, files
from tests.helpers.files import flip
from tests.helpers.pictures import picture

PICTURES = [(f"{n}.png", picture(n)) for n in range(6)]


@pytest.fixture
def make(encoder, monkeypatch):
    """Makes the same cache of several shards each time, or completes it."""
    monkeypatch.setattr("pipeline.embed_text.SHARD_BYTES", 20_000)
    monkeypatch.setattr("pipeline.embed_text.CORPUS_BYTES", 2_000)
    monkeypatch.setattr("pipeline.picture_shards.SHARD_BYTES", 5_000)

    def made(cache):
        embed_text(cache, encoder, collect(map(str, range(120))), "numbers", print)
        embed_images(cache, encoder, [*PICTURES, ("x", b"no picture")], 7, "noise", print)
        return cache

    return made


def look(cache, repair=False):
    return verify(cache, None, repair, lambda read: None)


def test_whole_cache_has_no_problem_and_every_byte_is_read(make, tmp_path):
    make(tmp_path)
    read = []
    found = verify(tmp_path, None, False, read.append)
    assert not found.problems
    assert found.shards == len(list(tmp_path.rglob("*.h5"))) == len(read)
    assert found.bytes == sum(read) == bytes_listed(tmp_path, None)
    assert found.bytes == sum(p.stat().st_size for p in tmp_path.rglob("*.h5"))


def test_each_shard_is_named_dropped_and_made_again(make, tmp_path):
    """One at a time: the repaired and completed cache equals the original, byte for byte."""
    make(tmp_path)
    before = files(tmp_path)
    for name in [n for n in before if n.endswith(".h5")]:
        flip(tmp_path / name)
        (problem,) = look(tmp_path).problems
        assert problem.path == name
        found = look(tmp_path, repair=True)
        assert found.problems[0].path == name
        waiting = sum("have no memory" in p.what for p in found.problems)
        assert waiting == ("memories" in name)
        assert found.repaired == len(found.problems) - waiting
        assert not (tmp_path / name).exists()
        make(tmp_path)
        assert files(tmp_path) == before, name


@pytest.mark.parametrize("name", ["index.faiss", "skipped.json"])
def test_what_lies_beside_shards_is_made_again(make, tmp_path, name):
    make(tmp_path)
    before = files(tmp_path)
    (path,) = tmp_path.rglob(name)
    flip(path)
    (problem,) = look(tmp_path).problems
    assert problem.path.endswith(name)
    look(tmp_path, repair=True)
    make(tmp_path)
    assert files(tmp_path) == before


def test_damaged_line_of_a_manifest_is_taken_out(make, tmp_path):
    make(tmp_path)
    before = files(tmp_path)
    (path,) = tmp_path.glob("*/memories/manifest.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b"shard", b"shart") + b"".join(lines[2:]))
    (problem,) = look(tmp_path).problems
    assert "line 2" in problem.what
    found = look(tmp_path, repair=True)
    assert [p.path.rpartition("/")[2] for p in found.problems] == ["manifest.jsonl", "numbers"]
    make(tmp_path)
    assert files(tmp_path) == before


def test_fingerprint_is_put_back_from_a_shard(make, tmp_path):
    make(tmp_path)
    before = files(tmp_path)
    (path,) = tmp_path.glob("*/space.json")
    for damage in (lambda: flip(path), lambda: path.write_bytes(b""), path.unlink):
        damage()
        (problem,) = look(tmp_path).problems
        assert problem.remedy == "restored from a shard"
        look(tmp_path, repair=True)
        assert files(tmp_path) == before


def test_labels_without_memories_are_counted(make, tmp_path):
    make(tmp_path)
    (path,) = tmp_path.glob("*/memories/manifest.jsonl")
    path.write_bytes(b"")
    found = look(tmp_path)
    assert [p.what for p in found.problems] == ["120 of its 120 labels have no memory"]
    assert len(found.unlisted) == len(list(path.parent.glob("*.h5")))


def test_shard_of_another_encoder_is_named_and_kept(make, full_encoder, tmp_path):
    make(tmp_path / "here")
    embed_text(tmp_path / "there", full_encoder, collect(["a"]), "other", print)
    (other,) = (tmp_path / "there").glob("*/corpora/other")
    moved = other.rename(open_space(tmp_path / "here").folder / "corpora" / "other")
    for repair in (False, True):
        (problem,) = look(tmp_path / "here", repair).problems
        assert "layout: compact / full" in problem.what
    assert (moved / "00000.h5").exists()


def test_damage_that_is_read_is_told_with_what_to_do(make, tmp_path):
    make(tmp_path)
    for path in tmp_path.glob("*/memories/*.h5"):
        flip(path)
    with pytest.raises(DptrError, match=r"memories/\d+.h5 is damaged.* dptr cache verify --repair"):
        everything(tmp_path)


def test_repair_waits_for_no_writer_but_says_so(make, tmp_path):
    make(tmp_path)
    with (
        writing(open_space(tmp_path).folder),
        pytest.raises(DptrError, match="is being written by process"),
    ):
        look(tmp_path, repair=True)
    assert not look(tmp_path).problems


def test_nothing_to_look_at_is_wrong_use(tmp_path):
    with pytest.raises(WrongUse, match="holds no encoder's space"):
        look(tmp_path)
    with pytest.raises(WrongUse, match="no space whose name begins with 'x'"):
        verify(tmp_path / "none", "x", False, lambda read: None)


def test_result_is_json(make, tmp_path):
    make(tmp_path)
    flip(next(tmp_path.rglob("*.h5")))
    assert json.loads(json.dumps(look(tmp_path).to_dict()))["problems"][0]["path"].endswith(".h5")
