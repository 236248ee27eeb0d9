"""Hard words: what kinds there are, and that each can be written."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.drawn.hard import HardWords

WORDS = ["street", "hotel", "cafe", "station"]
LATIN = frozenset(map(chr, range(33, 127)))


def some(hard, length, count=4000):
    rng = random.Random(length)
    return Counter(hard.draw(length, rng) for _ in range(count))


@given(st.lists(st.text("abcXYZ09-", min_size=1, max_size=8), min_size=1), st.integers(1, 9), st.integers(0, 9))
def test_every_hard_word_can_be_written(words, longest, seed):
    words = [word[:longest] for word in words]
    characters = frozenset("".join(words)) | {"x"}
    hard, rng = HardWords(words, characters, longest), random.Random(seed)
    for _ in range(20):
        length = hard.length(rng)
        word = hard.draw(length, rng)
        assert 1 <= length <= longest
        assert 1 <= len(word) <= longest
        assert characters.issuperset(word)


def test_kinds():
    seen = some(HardWords(WORDS, LATIN, 25), 5)
    for word in ("HTEL", "hhotel", "ohtel"):  # lost, doubled, swapped
        assert sum(count for text, count in seen.items() if text.casefold() == word.casefold()) > 0, word
    assert seen["hOtEl"] > 0  # letters in either case
    assert sum(count for word, count in seen.items() if word.casefold() == "cafes") > 0  # two words, one cut off
    assert sum(count for word, count in seen.items() if word.isdigit()) > 100
    assert sum(count for word, count in seen.items() if count == 1) / 4000 > 0.25  # no letters in any order twice
    assert {c for word in seen for c in word} == LATIN


def test_length_is_about_what_was_asked_for():
    hard = HardWords(WORDS, LATIN, 25)
    for length in (1, 5, 12, 25):
        lengths = [len(word) for word in some(hard, length, 500).elements()]
        assert max(lengths) <= min(25, length + 6)
        assert sum(length - 2 <= one <= length + 1 for one in lengths) > 350


@pytest.mark.parametrize("space", [True, False])
def test_words_stand_apart_if_the_reader_writes_spaces(space):
    hard = HardWords(WORDS, LATIN | ({" "} if space else set()), 25)
    seen = some(hard, 12, 1000)
    assert any(" " in word for word in seen) == space
    assert not any(word != word.strip() for word in seen)


def test_alphabet_without_letters():
    assert all(word.isdigit() for word in some(HardWords(["12", "7"], frozenset("0123456789"), 5), 3, 200))
