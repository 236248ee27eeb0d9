"""Pictures of words: their fonts, their looks, and that they follow from the seed."""

import random
import time
from string import ascii_letters, digits

import numpy as np
import pytest
import torch

import wordclip.drawing
from cache.errors import DptrError
from pipeline.tokenizer import tokenizer_of
from wordclip.drawing import Artist, photographs
from wordclip.fonts import PILLOWS, Font, find_fonts
from wordclip.pool import Pool
from wordclip.render import _letters, render
from wordclip.words import WordSampler

GROUNDS = [np.random.default_rng(0).integers(0, 256, (96, 120, 3), np.uint8)]


def test_fonts_are_found_with_what_they_draw(material):
    (font,) = find_fonts([str(material / "fonts")], [*ascii_letters, *digits, "漢"])
    assert font.path.endswith("Aileron.ttf")
    assert font.characters == frozenset(ascii_letters + digits)
    assert font.draws("Hotel42")
    assert not font.draws("漢")


def test_a_picture_follows_from_its_seed():
    one, two, other = (render("Hotel", [PILLOWS], GROUNDS, random.Random(seed)).picture for seed in (1, 1, 2))
    assert one.shape == (32, 128, 3)
    assert one.dtype == np.uint8
    assert (one == two).all()
    assert (one != other).any()


def test_every_look_of_every_kind_of_word_is_a_picture():
    rng = random.Random(3)
    for word in ["i", "W", ".", "1", "$9.99", "Hotel", "a" * 25, "W" * 25, "__", "-"] * 40:
        drawn = render(word, [PILLOWS], GROUNDS, rng)
        assert drawn.picture.shape == (32, 128, 3)
        assert len(drawn.centres) == len(word)


def test_centres_lie_where_the_letters_are():
    """A word of blanks and one bar: what is drawn is darkest at the bar's centre, whatever else happens to it."""
    off = []
    for seed in range(40):
        rng = random.Random(seed)
        letters, centres = _letters("iiii|iiii".replace("i", "."), PILLOWS, rng)
        columns = np.asarray(letters, float).sum(0)
        off.append(abs(columns.argmax() / len(columns) - centres[4]))
    assert max(off) < 0.03


def test_letters_can_be_seen():
    """The same seed with another word gives another picture, at nearly every seed."""
    pairs = [
        [render(word, [PILLOWS], GROUNDS, random.Random(seed)).picture for word in ("HOTEL", "LIBRARY")]
        for seed in range(50)
    ]
    seen = [np.abs(a.astype(int) - b.astype(int)).mean() > 3 for a, b in pairs]
    assert sum(seen) >= 45


def test_word_that_no_font_draws():
    with pytest.raises(ValueError, match="no font draws '漢'"):
        render("漢", [PILLOWS], GROUNDS, random.Random(0))
    able = Font("", frozenset("漢"))  # a rare one is found, however many cannot
    assert render("漢", [PILLOWS] * 500 + [able], GROUNDS, random.Random(0)).picture.shape == (32, 128, 3)


def test_chunks_do_not_depend_on_the_processes(material, tmp_path, monkeypatch):
    sampler = WordSampler([[("hotel", 1.0), ("coffee", 1.0)]], PILLOWS.characters)
    grounds = photographs([str(material / "photos")])
    assert [g.shape for g in grounds] == [(96, 96, 3)] * 3
    monkeypatch.setattr(wordclip.drawing, "CHUNK", 50)
    tokens = tokenizer_of("wordclip2")
    alone, two = (Artist(sampler, tokens, [PILLOWS], grounds, 7, tmp_path / name) for name in "ab")
    assert alone.read(0) is None
    for number in range(3):
        alone.draw(number)
    with two.at_work(3, 2):
        while any(two.read(number) is None for number in range(3)):
            time.sleep(0.05)
    for number in range(3):
        one, other = alone.read(number), two.read(number)
        assert one.pictures.shape == (50, 32, 128, 3)
        for name, values in vars(one).items():
            assert np.array_equal(values, getattr(other, name), equal_nan=name == "centres")
        assert ((one.letters > 0).sum(1) == one.lengths).all()
        assert (np.isfinite(one.centres).sum(1) == one.lengths).all()
        names = {number: c for c, number in tokens.number.items()}
        assert names[one.letters[0, 0]] in PILLOWS.characters


def test_drawing_that_fails_is_an_error_and_not_a_wait(tmp_path):
    """No font draws the only word: every process ends before its first chunk."""
    sampler = WordSampler([[("hotel", 1.0)]], frozenset("hotel"))
    artist = Artist(sampler, tokenizer_of("wordclip2"), [Font("", frozenset("x"))], [], 7, tmp_path)
    with (
        artist.at_work(1, 1),
        pytest.raises(DptrError, match="no picture could be drawn into"),
        Pool(1000, torch.device("cpu")).follow(artist, 1),
    ):
        pass
