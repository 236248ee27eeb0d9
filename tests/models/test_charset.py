"""Text to ids and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import WrongUse
from models.charset import CHARACTERS_94, EOS, Charset, characters

CHARSET = Charset()


def test_ids_are_the_released_ones():
    assert (CHARSET.bos, CHARSET.pad, CHARSET.ids, CHARSET.head) == (95, 96, 97, 95)
    assert CHARSET.encode(["01", "z"]).tolist() == [[95, 1, 2, EOS], [95, 36, EOS, 96]]


@given(st.lists(st.text(CHARACTERS_94, min_size=1), min_size=1))
def test_text_comes_back(labels):
    targets = CHARSET.encode(labels)[:, 1:]
    assert CHARSET.decode(torch.where(targets == CHARSET.pad, EOS, targets)) == labels


def test_other_characters_are_not_held():
    assert CHARSET.holds("a~Z")
    assert not CHARSET.holds("é")
    assert not CHARSET.holds("a b")


def test_charsets_by_name_have_their_size():
    for name in ("36", "62", "94"):
        assert len(set(characters(name))) == len(characters(name)) == int(name)
    assert characters("94") == CHARACTERS_94


def test_charset_of_a_file_is_what_stands_in_it(tmp_path):
    (tmp_path / "vi.txt").write_text("aăâ\nde\u0301 đđ\ufeff", "utf-8")
    assert characters(str(tmp_path / "vi.txt")) == "aăâdéđ\ufeff"


def test_charset_that_is_none_is_wrong_use(tmp_path):
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    for name, message in (("37", "neither 36, 62, 94 nor"), ("empty.txt", "no characters"), ("latin.txt", "UTF-8")):
        with pytest.raises(WrongUse, match=message):
            characters(name if name == "37" else str(tmp_path / name))


def test_charset_of_one_case_folds_to_it():
    assert Charset(characters("36")).fold("EXIT5") == "exit5"
    assert Charset(characters("62")).fold("EXIT5") == "EXIT5"
    assert Charset("汉字").fold("汉A") == "汉A"
