"""Means over sets, groups of length and the order of readings, worked out by hand."""

import json

import pytest

from train.reading.result import Evaluation, Reading, set_result, table


@pytest.fixture
def done():
    first = [Reading("street", "street", 0.9, 0), Reading("EXIT", "exit", 0.8, 1), Reading("a", "b", 0.7, 2)]
    second = [Reading("tomorrow", "tomorow", 0.6, 7)]
    return Evaluation("runs/x", 50, [set_result("one", first, {}), set_result("two", second, {"it is empty": 2})])


def test_badness_is_the_words_character_error_then_confidence():
    assert Reading("street", "streets", 0.5, 0).badness == (1 / 6, 0.5)
    assert Reading("ab", "xyz", 0.5, 0).badness == (3 / 2, 0.5)
    assert Reading("", "ab", 0.5, 0).error == 2
    assert Reading("a", "a", 0.5, 0).right


def test_both_means(done):
    assert done.scores.words == 4
    assert done.scores.accuracy_36 == pytest.approx(2 / 4)
    assert done.plain_mean["accuracy_36"] == pytest.approx((2 / 3 + 0) / 2)
    assert done.plain_mean["word_accuracy"] == pytest.approx((1 / 3 + 0) / 2)


def test_groups_of_length(done):
    assert {name: s.words for name, s in done.by_length.items()} == {"1-5": 2, "6-10": 2}


def test_worst_come_first_and_the_surest_of_equals(done):
    assert [r.truth for r in done.sets[0].readings] == ["EXIT", "a", "street"]  # both wholly wrong; EXIT was surer
    assert [r.truth for r in done.readings] == ["EXIT", "a", "tomorrow", "street"]


def test_table_and_json_say_it_all(done):
    lines = table(done, worst=2).splitlines()
    assert lines[0] == "runs/x (step 50)"
    assert [line.split()[0] for line in lines if line.startswith(("one", "two", "mean,"))] == [
        "one",
        "two",
        "mean,",
        "mean,",
        "two:",
    ]
    assert "two: 2 left out: it is empty" in lines
    assert lines[-2].split() == ["EXIT", "exit", "80%"]
    back = json.loads(json.dumps(done.to_dict()))
    assert back["sets"][1]["readings"][0] == {"truth": "tomorrow", "text": "tomorow", "confidence": 0.6, "number": 7}
    assert back["scores"]["words"] == 4


def test_labels_do_not_steer_the_terminal():
    readings = [Reading("\x1b[2J", "\u202e", 0.5, 0), Reading("[red]汉", "a", 0.5, 1)]
    lines = table(Evaluation("x", 1, [set_result("a\nb", readings, {"empty": 1})])).splitlines()
    assert r"a\nb: 1 left out: empty" in lines
    assert {tuple(line.split()) for line in lines[-2:]} == {(r"\x1b[2J", r"\u202e", "50%"), ("[red]汉", "a", "50%")}


def test_one_set_needs_no_means(done):
    assert "mean" not in table(Evaluation("x", 1, done.sets[:1]))
