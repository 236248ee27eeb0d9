"""Pictures of words: their fonts, their looks, and that they follow from the seed."""

import hashlib
import random
from string import ascii_letters, digits

import numpy as np
import PIL
import pytest
from PIL import ImageFont

from sources.drawn.fonts import PILLOWS, Font, find_fonts
from sources.drawn.render import _letters, render
from sources.drawn.words import WordSampler

GROUNDS = [np.random.default_rng(0).integers(0, 256, (96, 120, 3), np.uint8)]


def test_fonts_are_found_with_what_they_draw(tmp_path):
    (tmp_path / "Aileron.ttf").write_bytes(ImageFont.load_default(20).font_bytes)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    (font,) = find_fonts([str(tmp_path)], [*ascii_letters, *digits, "漢"])
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


@pytest.mark.skipif((PIL.__version__, np.__version__[:2]) != ("13.0.0", "2."), reason="other libraries, other pixels")
def test_what_is_drawn_from_a_seed_stays_what_it_was():
    """Words, pixels and centres, so that a run of the encoder's training can be repeated."""
    rng, told = random.Random("pictures"), hashlib.sha256()
    grounds = [np.random.default_rng(n).integers(0, 256, (96, 120, 3), np.uint8) for n in range(3)]
    sampler = WordSampler([[("hotel", 1.0), ("coffee", 0.5)], [("bakery", 1.0)]], PILLOWS.characters)
    for _ in range(40):
        word = sampler.draw(rng)
        drawn = render(word, [PILLOWS], grounds, rng)
        told.update(word.encode() + drawn.picture.tobytes() + np.array(drawn.centres).tobytes())
    assert told.hexdigest() == "fcecbe931d96c53fa406ddba00bb53c9d537203dc9da1ee38d535bbe7790063b"
