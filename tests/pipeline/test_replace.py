"""--replace makes a corpus or bank what its sources are now, and encodes nothing that is cached."""

import os

import numpy as np
import pytest

from cache.errors import DptrError
from cache.garbage import find_garbage, remove
from cache.keys import key_bytes
from cache.manifest import STAGED
from cache.space import open_space
from cache.verify import verify
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.labels import collect
from pipeline.neighbours import neighbours
from tests.helpers.pictures import picture
from tests.pipeline.test_embed_text import files

CORRECTED = ["three", "one", "two", "one", "four"]


@pytest.fixture
def small(monkeypatch):
    """Shards of few labels and pictures, so that there are several."""
    monkeypatch.setattr("pipeline.embed_text.CORPUS_BYTES", 100)
    monkeypatch.setattr("pipeline.picture_shards.BATCH", {"cpu": 4})
    monkeypatch.setattr("pipeline.picture_shards.SHARD_BYTES", 10_000)


def pictures(**named):
    return [(name + ".png", picture(number)) for name, number in named.items()]


OLD = pictures(a=0, b=1, c=2, d=3, e=4, f=5)
NEW = [
    *pictures(g=6, e=4, d=3, B=1, c=9, a=0),
    ("bad.png", b"x"),
]  # c is another picture, b has another name, f is gone


def test_corpus_becomes_what_the_list_is_now(tmp_path, encoder, say, small):
    embed_text(tmp_path, encoder, collect(["one", "tow", "three", "tow", "five"]), "words", say)
    done = embed_text(tmp_path, encoder, collect(CORRECTED), "words", say, replace=True)
    assert (done.new_labels, done.removed_labels, done.new_memories, done.known_memories) == (2, 2, 2, 2)
    embed_text(tmp_path / "other", encoder, collect(CORRECTED), "words", say)
    corpus, made_at_once = open_space(tmp_path).corpus("words"), open_space(tmp_path / "other").corpus("words")
    assert corpus.labels() == made_at_once.labels() == ["three", "one", "two", "four"]
    assert corpus.counts().tolist() == [1, 2, 1, 1]
    assert [e.sha256 for e in corpus.entries] == [e.sha256 for e in made_at_once.entries]
    space = open_space(tmp_path)
    assert space.memories.rows == 6  # also those of tow and five
    assert find_garbage(space).memories == 2
    before = files(tmp_path)
    embed_text(tmp_path, encoder, collect(CORRECTED), "words", say, replace=True)
    assert files(tmp_path) == before


def test_labels_can_be_added_after_replacing(tmp_path, encoder, say, small):
    embed_text(tmp_path, encoder, collect(["x", "y"]), "words", say)
    for first in (0, 5, 10):
        embed_text(tmp_path, encoder, collect(map(str, range(first, first + 20))), "words", say, replace=True)
        embed_text(tmp_path, encoder, collect(["last"]), "words", say)
        assert open_space(tmp_path).corpus("words").labels() == [*map(str, range(first, first + 20)), "last"]
    assert verify(tmp_path, None, False, lambda n: None).problems == []


def test_reader_of_what_was_replaced_is_told(tmp_path, encoder, say):
    embed_text(tmp_path, encoder, collect(["x", "y"]), "words", say)
    corpus = open_space(tmp_path).corpus("words")
    embed_text(tmp_path, encoder, collect(["y", "z"]), "words", say, replace=True)
    with pytest.raises(DptrError, match="was cleaned or repaired by another process"):
        corpus.labels()


def bank_of(folder):
    bank = open_space(folder).bank("photos")
    rows = dict(zip(bank.ids(), bank.features(), strict=True))
    return rows, dict(zip(bank.ids(), key_bytes(bank.keys()), strict=True))


def test_bank_becomes_what_the_folder_is_now(tmp_path, encoder, say, small, monkeypatch):
    embed_images(tmp_path, encoder, [*OLD, ("gone.png", b"no")], 7, "photos", say)
    old_rows, _ = bank_of(tmp_path)
    embed_text(tmp_path, encoder, collect(["x"]), "words", say)
    neighbours(open_space(tmp_path), "words", "photos", 2, say)
    encoded = []
    pixels = encoder.pixels
    with monkeypatch.context() as patched:
        patched.setattr(encoder, "pixels", lambda data: encoded.append(data) or pixels(data))
        done = embed_images(tmp_path, encoder, NEW, 7, "photos", say, replace=True)
    assert set(encoded) == {picture(6), picture(9)}
    assert (done.read, done.new, done.known, done.removed) == (7, 2, 4, 2)
    assert done.skipped == open_space(tmp_path).bank("photos").skipped() == {"bad.png": "it is not a picture"}
    embed_images(tmp_path / "other", encoder, NEW, 7, "photos", say)
    rows, keys = bank_of(tmp_path)
    expected, expected_keys = bank_of(tmp_path / "other")
    assert (list(rows), keys) == (["a.png", "B.png", "d.png", "e.png", "g.png", "c.png"], expected_keys)
    assert all(np.abs(rows[name] - expected[name]).max() < 4e-3 for name in expected)
    assert (rows["B.png"] == old_rows["b.png"]).all()
    space = open_space(tmp_path)
    assert space.bank("photos").whole_index().ntotal == 6
    assert all(space.bank("photos").thumbnails(range(6)))
    assert any(
        "table of neighbours is of other photographs now: run dptr neighbours CORPUS photos" in x for x in say.lines
    )
    with pytest.raises(DptrError, match="found among 6 other photographs than the 6 that it has now"):
        space.neighbours("photos").read("near", space.memories, space.bank("photos"))
    before = files(tmp_path)
    again = embed_images(tmp_path, encoder, NEW, 7, "photos", say, replace=True)
    assert (again.new, again.removed) == (0, 0)
    assert files(tmp_path) == before


def test_photographs_can_be_added_after_replacing(tmp_path, encoder, say, small):
    embed_images(tmp_path, encoder, OLD, 6, "photos", say)
    for start in (20, 22, 24):
        some = [(f"{n}.png", picture(n)) for n in range(start, start + 9)]
        embed_images(tmp_path, encoder, some, 9, "photos", say, replace=True)
        embed_images(tmp_path, encoder, pictures(last=1), 1, "photos", say)
        assert bank_of(tmp_path)[0].keys() == {*(name for name, _ in some), "last.png"}
        assert open_space(tmp_path).bank("photos").whole_index().ntotal == 10
    assert verify(tmp_path, None, False, lambda n: None).problems == []


def test_replacing_that_was_stopped_goes_on(tmp_path, encoder, say, small, monkeypatch):
    """Shards that are finished are not made again, unless gc removed them; they are no part of the bank meanwhile."""
    embed_images(tmp_path, encoder, OLD, 6, "photos", say)
    folder = open_space(tmp_path).bank("photos").folder
    some = [(f"{n}.png", picture(n)) for n in range(20, 40)]
    for clean, known in ((False, 8), (True, 0)):
        with monkeypatch.context() as patched:
            patched.setattr("pipeline.embed_images.replace_pictures", stopped)
            with pytest.raises(KeyboardInterrupt):
                embed_images(tmp_path, encoder, some[:8], 8, "photos", say, replace=True)
        assert list(bank_of(tmp_path)[0]) == [name for name, _ in OLD]
        assert (folder / STAGED).exists()
        if clean:
            remove(find_garbage(open_space(tmp_path)))
            assert not (folder / STAGED).exists()
        done = embed_images(tmp_path, encoder, some, 20, "photos", say, replace=True)
        assert (done.known, done.new, done.removed) == (known, 20 - known, 6)
        embed_images(tmp_path, encoder, OLD, 6, "photos", say, replace=True)
    (folder / STAGED).write_text("nonsense\n")  # damage to what is only extra is no matter
    assert embed_images(tmp_path, encoder, OLD, 6, "photos", say, replace=True).new == 0


def stopped(*given):
    raise KeyboardInterrupt


def test_bank_on_a_file_system_without_links(tmp_path, encoder, say, small, monkeypatch):
    embed_images(tmp_path, encoder, OLD, 6, "photos", say)
    monkeypatch.setattr(os, "link", lambda *names: (_ for _ in ()).throw(PermissionError))
    embed_images(tmp_path, encoder, NEW, 7, "photos", say, replace=True)
    assert bank_of(tmp_path)[0].keys() == {name for name, data in NEW if data != b"x"}


def test_bank_that_was_decoded_otherwise_is_made_anew(tmp_path, encoder, say, small, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.picture_shards.DECODING", "upside down")
        embed_images(tmp_path, encoder, OLD, 6, "photos", say)
    done = embed_images(tmp_path, encoder, OLD[:4], 4, "photos", say, replace=True)
    assert (done.new, done.known, done.removed) == (4, 0, 6)
    assert open_space(tmp_path).bank("photos").decoding() != "upside down"


def test_nothing_left_is_an_error_and_changes_nothing(tmp_path, encoder, say):
    embed_images(tmp_path, encoder, OLD, 6, "photos", say)
    embed_text(tmp_path, encoder, collect(["x"]), "words", say)
    before = files(tmp_path)
    with pytest.raises(DptrError, match="no picture is left for bank 'photos', which stays as it is"):
        embed_images(tmp_path, encoder, OLD, 6, "photos", say, max_text_score=0, replace=True)
    with pytest.raises(DptrError, match="none of 1 files could be read as a picture"):
        embed_images(tmp_path, encoder, [("a", b"x")], 1, "photos", say, replace=True)
    with pytest.raises(DptrError, match="no usable word"):
        embed_text(tmp_path, encoder, collect([""]), "words", say, replace=True)
    assert files(tmp_path) == before


def test_photographs_of_the_bank_with_text_go_too(tmp_path, encoder, say, small):
    embed_images(tmp_path, encoder, OLD, 6, "photos", say)
    from pipeline.text_score import TextScore

    scores = TextScore(encoder)(open_space(tmp_path).bank("photos").features())
    most = float(np.median(scores))
    done = embed_images(tmp_path, encoder, OLD, 6, "photos", say, max_text_score=most, replace=True)
    assert (done.read, done.new, done.known, done.removed, len(done.skipped)) == (6, 0, 3, 3, 3)
    assert open_space(tmp_path).bank("photos").ids() == [
        name for (name, _), s in zip(OLD, scores, strict=True) if s <= most
    ]
