"""Sets that are drawn: what their pictures say, and that they follow from the chance they are given."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from models.charset import CHARACTERS_36, Charset
from sources.drawn.drawn_set import NO_FONT, Scenery, Writing, drawn_set
from sources.drawn.fonts import Font
from tests.helpers.drawing import SCENERY, WRITING
from train.data.crops import usable

WORDS = [f"{a}{b}" for a in ("hotel", "cafe", "street") for b in ("", "s", "line", "yard")]


def said(one, times=300):
    rng = random.Random(0)
    return [one.draw(rng.randrange(len(one)), rng, (8, 32))[1] for _ in range(times)]


def test_a_picture_follows_from_the_chance_alone():
    one, again = (drawn_set("a", WORDS, WRITING, SCENERY, 0.5, seed=3) for _ in range(2))
    assert one.labels == again.labels
    for n in (0, len(one) - 1):
        (first, text), (second, same), (third, _) = (
            made.draw(n, random.Random(seed), (32, 128)) for made, seed in ((one, 1), (again, 1), (one, 2))
        )
        assert first.shape == (32, 128, 3)
        assert first.dtype == np.uint8
        assert (first == second).all()
        assert text == same
        assert (first != third).any()
    assert one.draw(0, random.Random(1), (16, 48))[0].shape == (16, 48, 3)


def test_words_are_shown_in_their_cases_and_hard_ones_in_their_share():
    one = drawn_set("a", [*WORDS, WORDS[0], " cafe "], WRITING, SCENERY, 0.25)
    assert len(one) == 16  # twelve are listed, once each
    assert [len(label) for label in one.labels[12:]] != [0, 0, 0, 0]
    listed = Counter(one.draw(n, random.Random(seed), (8, 32))[1] for n in range(12) for seed in range(50))
    assert {text.casefold() for text in listed} == set(WORDS)
    assert sum(count for text, count in listed.items() if text.isupper()) == pytest.approx(0.45 * 600, rel=0.2)
    hard = [one.draw(15, random.Random(seed), (8, 32))[1] for seed in range(60)]
    assert len(set(hard)) > 40
    assert len(drawn_set("a", WORDS, WRITING, SCENERY)) == 12


def test_what_is_said_can_be_written():
    for characters in (CHARACTERS_36, WRITING.characters, "hotelcafsrHO "):
        charset = Charset(characters)
        writing = Writing(characters, 7, charset.fold)
        one = drawn_set("a", WORDS, writing, SCENERY, 0.5)
        crops = usable([one], charset, 7)
        assert len(crops) < len(one)
        assert crops.dropped["longer than 7 characters"] > 0
        for text in said(drawn_set("a", crops.labels, writing, SCENERY, 0.5)):
            assert 1 <= len(text) <= 7
            assert charset.holds(text)


def test_a_reader_of_one_case_sees_both():
    """Its labels are in lower case whatever the picture shows."""
    writing = Writing(CHARACTERS_36, 25, Charset(CHARACTERS_36).fold)
    assert writing.shown == frozenset(CHARACTERS_36 + CHARACTERS_36.upper())
    one = drawn_set("a", ["Hotel"], writing, SCENERY)
    assert {text for text in said(one)} == {"hotel"}
    flat = replace(SCENERY, photographs=[])
    seen = {drawn_set("a", ["Hotel"], writing, flat).draw(0, random.Random(n), (8, 32))[0].tobytes() for n in range(9)}
    assert len(seen) == 9


def test_words_without_a_font_are_counted():
    digits = Font("", frozenset("0123456789"))
    one = drawn_set("a", ["12", "hotel", "34"], WRITING, Scenery([digits], []), 0.5)
    crops = usable([one], Charset(), 25)
    assert crops.dropped == {NO_FONT: 1}
    assert len(crops) == 4
    numbers = drawn_set("a", ["12", "34"], WRITING, Scenery([digits], []), 0.5)
    assert all(text.isdigit() for text in said(numbers))  # the hard ones too


def test_spaces_need_no_glyph():
    writing = Writing(WRITING.characters + " ", 25)
    one = drawn_set("a", ["no  exit"], writing, SCENERY)
    assert one.draw(0, random.Random(0), (32, 128))[1].casefold() == "no exit"


def test_the_hash_tells_words_fonts_and_photographs_apart():
    hashes = [
        drawn_set("a", words, WRITING, scenery).drawn_from
        for words, scenery in (
            (["a"], SCENERY),
            (["b"], SCENERY),
            (["a"], replace(SCENERY, photographs=[])),
            (["a"], replace(SCENERY, fonts=[Font("", frozenset("ab"))])),
        )
    ]
    assert len(set(hashes)) == 4
    assert drawn_set("other", ["a"], WRITING, SCENERY).drawn_from == hashes[0]
