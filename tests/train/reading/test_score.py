"""Scores against figures worked out by hand, and distances against their definition."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.reading.score import alphanumeric, score


@cache
def distance_by_definition(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(
        distance_by_definition(a[1:], b) + 1,
        distance_by_definition(a, b[1:]) + 1,
        distance_by_definition(a[1:], b[1:]) + (a[0] != b[0]),
    )


WORD, READ = st.text("ab汉", min_size=1, max_size=8), st.text("ab汉", max_size=8)


@given(st.lists(st.tuples(WORD, READ), min_size=1, max_size=5))
def test_errors_follow_the_definition_of_the_distance(pairs):
    result = score(*zip(*pairs, strict=True))
    distances = [distance_by_definition(*pair) for pair in pairs]
    assert result.character_error == pytest.approx(sum(distances) / sum(len(truth) for truth, _ in pairs))
    shares = [1 - d / max(map(len, pair)) for d, pair in zip(distances, pairs, strict=True)]
    assert result.ned == pytest.approx(sum(shares) / len(pairs))


def test_scores_worked_out_by_hand():
    result = score(["street", "EXIT", "ab", "x"], ["street", "exit", "b", ""])
    assert result.words == 4
    assert result.word_accuracy == 0.25
    assert result.ignoring_case == 0.5
    assert result.character_error == pytest.approx(6 / 13)
    assert result.ned == pytest.approx((1 + 0 + 0.5 + 0) / 4)


def test_no_words_is_an_error():
    with pytest.raises(ValueError, match="no words"):
        score([], [])


def test_the_fields_three_accuracies_worked_out_by_hand():
    result = score(["Man's", "SALE", "$5", "!?", "ab"], ["MANS", "SALE", "5", "x", "a b"])
    assert result.word_accuracy == pytest.approx(1 / 5)  # SALE
    assert result.accuracy_62 == pytest.approx(3 / 4)  # !? has neither letter nor digit; Mans is not MANS
    assert result.accuracy_36 == pytest.approx(4 / 4)
    assert result.ned_36 == pytest.approx(1.0)


def test_letters_of_any_script_are_letters():
    assert alphanumeric("$4.99 Café") == "499Café"
    assert alphanumeric("phở-bò!") == "phởbò"
    assert alphanumeric("हिन्दी") == "हिन्दी"  # vowel signs are marks
    assert score(["phở!"], ["PHỞ"]).accuracy_36 == 1.0


@given(st.text(st.characters(max_codepoint=127)))
def test_for_ascii_it_is_the_fields_62(text):
    from models.charset import CHARACTERS_62

    assert alphanumeric(text) == "".join(c for c in text if c in CHARACTERS_62)
