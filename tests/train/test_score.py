"""Scores against figures worked out by hand, and distances against their definition."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.score import edit_distance, score


@cache
def distance_by_definition(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(
        distance_by_definition(a[1:], b) + 1,
        distance_by_definition(a, b[1:]) + 1,
        distance_by_definition(a[1:], b[1:]) + (a[0] != b[0]),
    )


@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_distance_equals_the_definition(a, b):
    assert edit_distance(a, b) == distance_by_definition(a, b)


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
