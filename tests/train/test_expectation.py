"""What a plan promises: words shown against words wanted, and the time that is left."""

import time
from dataclasses import replace

import torch

from train.expectation import CHARACTERS, PIECES, TIMED, Estimate, duration, expectation, none_right, wanted


def test_short_runs_are_told_so():
    assert "far too few, raise --epochs" in expectation(60 * 32, "--epochs")
    assert "far too few" not in expectation(153_600, "--epochs")
    assert "show it 100,000 or more" in none_right(1_920, "--epochs")
    assert "show it 5,000,000 or more" in none_right(200_000, "--epochs")
    assert "check labels" in none_right(6_000_000, "--epochs")


def test_rows_of_characters_are_read_sooner(encoder):
    """Those of an encoder that was trained on characters; an untrained one teaches nothing."""
    pieces = encoder.fingerprint
    characters = replace(pieces, tokenizer="characters abc", untrained_seed=None)
    found = [wanted(one) for one in (None, pieces, replace(characters, untrained_seed=1), characters)]
    assert found == [PIECES, PIECES, PIECES, CHARACTERS]
    assert "far too few" not in expectation(38_400, "--epochs", CHARACTERS)
    assert "far too few, raise --epochs" in expectation(2_000, "--epochs", CHARACTERS)
    assert "show it 100,000 or more" in none_right(38_400, "--epochs", CHARACTERS)


def test_rest_is_estimated_once_without_the_first_step():
    estimate, now = Estimate(5, 1005), time.perf_counter()
    lines = [estimate.after(step, now - (100 if step == 6 else 2), torch.zeros(())) for step in range(6, 30)]
    assert [n for n, line in enumerate(lines, 1) if line] == [TIMED]
    assert lines[TIMED - 1] == "the remaining 990 steps take about 33 min"
    assert Estimate(0, TIMED).after(TIMED, now, torch.zeros(())) == ""


def test_durations_are_rough():
    assert [duration(s) for s in (7, 100, 5000, 10000)] == ["7 s", "2 min", "83 min", "3 h"]
