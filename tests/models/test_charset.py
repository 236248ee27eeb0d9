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


def test_charset_of_a_file_is_taken_as_it_is(tmp_path):
    """As OpenOCR and PaddleOCR take it, so that ids are theirs: the space, and ideographs that NFC would replace."""
    lines = ["\u3000", "a", "\uf967", " ", "\u0085", "\u2028", "e", "\u0301", "\ufeff"]
    (tmp_path / "dict.txt").write_bytes("\n".join(lines).encode())
    (tmp_path / "crlf.txt").write_bytes("".join(f"{c}\r\n" for c in lines).encode("utf-8-sig"))
    (tmp_path / "line.txt").write_bytes(("".join(lines) + "\n").encode())
    for name in ("dict.txt", "crlf.txt", "line.txt"):
        assert characters(str(tmp_path / name)) == "".join(lines)
    assert Charset("".join(lines)).encode([" a"]).tolist() == [[10, 4, 2, EOS]]


def test_space_comes_last_if_asked_for(tmp_path):
    """As PaddleOCR's use_space_char puts it."""
    assert characters("36", space=True) == characters("36") + " "
    (tmp_path / "dict.txt").write_text("a\nb\n")
    assert characters(str(tmp_path / "dict.txt"), space=True) == "ab "


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("37", None, "neither 36, 62, 94 nor"),
        ("empty.txt", b"", "no characters"),
        ("latin.txt", b"\xe9", "UTF-8"),
        ("twice.txt", b"a\nb\na\n", r"line 3 repeats the character of line 1 \(U\+0061\)"),
        ("twice.txt", b"abca", r"character 4 repeats the character of character 1 \(U\+0061\)"),
        ("long.txt", "a\ne\u0301\n".encode(), "line 2 has 2 characters: write one a line"),
        ("gap.txt", b"a\n\nb\n", "line 2 has 0 characters"),
        ("space.txt", b"a\n \n", "has the space already, as character 2"),
    ],
)
def test_charset_that_is_none_is_wrong_use(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
        name = str(tmp_path / name)
    with pytest.raises(WrongUse, match=message):
        characters(name, space=True)


def test_charset_of_one_case_folds_to_it():
    assert Charset(characters("36")).fold("EXIT5") == "exit5"
    assert Charset(characters("62")).fold("EXIT5") == "EXIT5"
    assert Charset("汉字").fold("汉A") == "汉A"
