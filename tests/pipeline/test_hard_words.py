"""Made-up labels beside the listed ones: as many as asked for, always the same, and all of them possible."""

from string import ascii_letters, digits, punctuation

import pytest

import pipeline.hard_words
from pipeline.hard_words import add_hard_words
from pipeline.labels import collect

LISTED = [f"word{n}" for n in range(300)] + ["Straße", "New York"]
ASCII = set(ascii_letters + digits + punctuation)


def made_up(share, longest=12, spaces=False, listed=LISTED):
    labels = collect(listed, longest, keep_unicode=True, keep_spaces=spaces)
    before = dict(labels)
    add_hard_words(labels, share, longest, spaces)
    after = dict(labels)
    assert list(after)[: len(before)] == list(before)  # listed ones stay first, in their order
    assert len(after) == len(labels)
    return after.keys() - before.keys(), sum(after.values()) - sum(before.values())


def test_they_are_the_share_that_was_asked_for():
    new, count = made_up(0.4)
    assert count == 201  # of 302 and these
    assert 150 < len(new) <= count
    assert made_up(0)[1] == 0


def test_they_follow_from_the_labels():
    assert made_up(0.3) == made_up(0.3)
    assert made_up(0.3)[0] != made_up(0.3, listed=LISTED[1:])[0]


@pytest.mark.parametrize("spaces", [False, True])
def test_they_have_the_characters_and_the_length_of_labels(spaces):
    new, _ = made_up(0.9, 9, spaces)
    letters = set("".join(new))
    assert max(map(len, new)) == 9
    assert letters & set(punctuation)
    assert "ß" in letters
    assert letters <= ASCII | set("ß ") if spaces else letters <= ASCII | {"ß"}
    assert (" " in letters) == spaces
    assert all(word == word.strip() for word in new)


def test_of_many_labels_some_are_models(monkeypatch):
    monkeypatch.setattr(pipeline.hard_words, "MODELS", 10)
    assert made_up(0.5)[1] == 302
