"""Pictures of words: their fonts, their looks, and that they follow from the seed."""

import random
from string import ascii_letters, digits

import numpy as np
import pytest

import wordclip.ahead
from wordclip.ahead import draw_ahead, drawn_ahead, photographs
from wordclip.fonts import PILLOWS, Font, find_fonts
from wordclip.render import render
from wordclip.words import WordSampler

GROUNDS = [np.random.default_rng(0).integers(0, 256, (96, 120, 3), np.uint8)]


def test_fonts_are_found_with_what_they_draw(material):
    (font,) = find_fonts([str(material / "fonts")], [*ascii_letters, *digits, "漢"])
    assert font.path.endswith("Aileron.ttf")
    assert font.characters == frozenset(ascii_letters + digits)
    assert font.draws("Hotel42")
    assert not font.draws("漢")


def test_a_picture_follows_from_its_seed():
    one, two, other = (render("Hotel", [PILLOWS], GROUNDS, random.Random(seed)) for seed in (1, 1, 2))
    assert one.shape == (32, 128, 3)
    assert one.dtype == np.uint8
    assert (one == two).all()
    assert (one != other).any()


def test_every_look_of_every_kind_of_word_is_a_picture():
    rng = random.Random(3)
    for word in ["i", "W", ".", "1", "$9.99", "Hotel", "a" * 25, "W" * 25, "__", "-"] * 40:
        assert render(word, [PILLOWS], GROUNDS, rng).shape == (32, 128, 3)


def test_letters_can_be_seen():
    """The same seed with another word gives another picture, at nearly every seed."""
    pairs = [
        [render(word, [PILLOWS], GROUNDS, random.Random(seed)) for word in ("HOTEL", "LIBRARY")] for seed in range(50)
    ]
    seen = [np.abs(a.astype(int) - b.astype(int)).mean() > 3 for a, b in pairs]
    assert sum(seen) >= 45


def test_word_that_no_font_draws():
    with pytest.raises(ValueError, match="no font draws '漢'"):
        render("漢", [PILLOWS], GROUNDS, random.Random(0))
    able = Font("", frozenset("漢"))  # a rare one is found, however many cannot
    assert render("漢", [PILLOWS] * 500 + [able], GROUNDS, random.Random(0)).shape == (32, 128, 3)


def test_pictures_drawn_ahead_do_not_depend_on_the_processes(material, tmp_path, encoder, monkeypatch):
    sampler = WordSampler([[("hotel", 1.0), ("coffee", 1.0)]], encoder.prompt.tokens, PILLOWS.characters)
    grounds = photographs([str(material / "photos")])
    assert [g.shape for g in grounds] == [(96, 96, 3)] * 3
    monkeypatch.setattr(wordclip.ahead, "CHUNK", 100)
    draw_ahead(tmp_path / "a", 150, sampler, [PILLOWS], grounds, 7)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    draw_ahead(tmp_path / "b", 200, sampler, [PILLOWS], grounds, 7)
    (pictures, words), (again, same) = drawn_ahead(tmp_path / "a"), drawn_ahead(tmp_path / "b")
    assert len(pictures) == len(words) == 200  # whole chunks
    assert words == same
    assert (pictures == again).all()
