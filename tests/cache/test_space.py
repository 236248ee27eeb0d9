"""Spaces are opened by name, refused when damaged, and never confused."""

import json

import numpy as np
import pytest

from cache.errors import DptrError, WrongUse
from cache.files import LONGEST
from cache.info import describe, show
from cache.space import complete_space, open_space, space_with
from tests.cache.test_fingerprint import replace
from tests.helpers.fingerprint import ONE


@pytest.fixture
def space(tmp_path):
    return make(tmp_path, ONE, np.ones((5, 4), np.float16))


def make(cache, fingerprint, prefix):
    folder = cache / fingerprint.folder
    folder.mkdir()
    return complete_space(
        folder, fingerprint, lambda: {"prefix": prefix, "text_projection": np.eye(4, dtype=np.float32)}
    )


def test_space_comes_back(space, tmp_path):
    again = open_space(tmp_path)
    assert again.fingerprint == ONE
    assert {name: array.shape for name, array in again.constants().items()} == {
        "prefix": (5, 4),
        "text_projection": (4, 4),
    }


def test_empty_prefix_can_be_stored(tmp_path):
    assert make(tmp_path, ONE, np.empty((0, 4), np.float16)).constants()["prefix"].shape == (0, 4)


def test_no_cache_says_what_to_do(tmp_path):
    with pytest.raises(WrongUse, match="holds no encoder's space: fill one with dptr embed-text"):
        open_space(tmp_path / "none")
    with pytest.raises(WrongUse, match="there is no cache"):
        describe(tmp_path / "none")


def test_one_of_several_must_be_chosen(space, tmp_path):
    other = make(tmp_path, replace(ONE, layout="full"), np.empty((0, 4), np.float16))
    with pytest.raises(WrongUse, match="choose one with --space"):
        open_space(tmp_path)
    assert open_space(tmp_path, other.name).digest == other.digest


def test_space_that_alone_has_the_corpus_is_chosen_and_said(space, tmp_path, say):
    other = make(tmp_path, replace(ONE, layout="full"), np.empty((0, 4), np.float16))
    for one, corpora in ((space, ["en"]), (other, ["en", "de"])):
        for name in corpora:
            (one.folder / "corpora" / name).mkdir(parents=True)
    assert space_with(tmp_path, None, ["de"], [], say).name == other.name
    assert say.lines == [f"space {other.name}, because of the 2 in {tmp_path} only it has 'de'"]
    for corpora, banks in ((["en"], []), (["fr"], []), (["de"], ["photos"])):
        with pytest.raises(WrongUse, match="choose one with --space"):
            space_with(tmp_path, None, corpora, banks, say)
    assert space_with(tmp_path, space.name, ["de"], [], say).name == space.name  # which then says what it has
    assert len(say.lines) == 1


def test_half_made_space_is_none(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(WrongUse, match="holds no encoder's space"):
        open_space(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"digest": 1}', "{"])
def test_damaged_space_is_named(space, tmp_path, text):
    (space.folder / "space.json").write_text(text)
    with pytest.raises(DptrError, match="space.json is damaged"):
        open_space(tmp_path)


def test_damaged_constants_are_named(space):
    (space.folder / "constants" / "00000.h5").write_bytes(b"x")
    with pytest.raises(DptrError, match="constants/00000.h5 is damaged"):
        space.constants()
    (space.folder / "constants" / "manifest.jsonl").unlink()
    with pytest.raises(DptrError, match="constants is damaged: it is empty"):
        space.constants()


def test_other_format_is_refused(space, tmp_path):
    other = replace(ONE, format=99)
    (space.folder / "space.json").write_bytes(other.to_json())
    with pytest.raises(DptrError, match="cache format 99"):
        open_space(tmp_path)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 300])
def test_names_that_are_no_folder_are_wrong_use(space, name):
    with pytest.raises(WrongUse, match="cannot name a corpus"):
        space.corpus(name)


def test_missing_corpus_lists_those_there_are(cache):
    with pytest.raises(WrongUse, match=r"no corpus 'x' in .*it has numbers"):
        open_space(cache).existing_corpus("x")
    with pytest.raises(WrongUse, match=r"no bank 'x' in .*it has noise"):
        open_space(cache).existing_bank("x")


def test_info_counts_what_is_there(cache):
    found = describe(cache)
    (space,) = json.loads(json.dumps(found))["spaces"]
    assert space["memories"][0]["rows"] == 900
    assert [(c["name"], c["rows"]) for c in space["corpora"]] == [("numbers", 900)]
    assert [(b["name"], b["rows"]) for b in space["banks"]] == [("noise", 5)]
    assert space["memories"][0]["bytes"] == sum(p.stat().st_size for p in cache.glob("*/memories/*.h5"))
    assert "UNTRAINED" in show(found)
    assert space["digest"] in show(found)


@pytest.mark.parametrize("name", ["en", "de-2.0_x", "汉字", "Cafe\u0301", "हिन्दी", "x" * LONGEST])
def test_names_of_letters_digits_and_a_few_signs_are_taken(space, name):
    assert space.corpus(name).name == name
    assert space.bank(name).name == name


@pytest.mark.parametrize("name", ["", ".x", "a b", "a\nb", "a\x1b[31m", "a/b", "..", "a\0", "a\udcff", "a\u202eb"])
def test_other_names_are_refused_and_shown_escaped(space, name):
    for make_one, kind in ((space.corpus, "corpus"), (space.bank, "bank")):
        with pytest.raises(WrongUse, match=f"cannot name a {kind}: use letters, digits") as error:
            make_one(name)
        assert str(error.value).isprintable()


def test_name_that_is_too_long_is_told_so(space):
    with pytest.raises(WrongUse, match="it has 300 bytes, and 200 are allowed"):
        space.corpus("x" * 300)


def test_name_that_is_there_from_before_is_still_opened(space):
    (space.folder / "corpora" / "a b").mkdir(parents=True)
    assert space.corpus("a b").name == "a b"
    assert [c["name"] for c in describe(space.folder.parent)["spaces"][0]["corpora"]] == ["a b"]


def test_name_that_is_there_from_before_forges_no_row(cache):
    found = describe(cache)
    (bank,) = found["spaces"][0]["banks"]
    bank["name"] = "a\nb  forged"
    assert r"index     a\nb  forged: " in show(found)
    assert all("forged" not in line or r"a\nb  forged" in line for line in show(found).splitlines())
