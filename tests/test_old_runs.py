"""A cache and runs that an earlier version wrote still load, read the same words and go on.

tests/data/before-the-move was written by version 0.1.0 at commit 673ae68, with an untrained CLIP of 32 values a token.
"""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import app

EARLIER = Path(__file__).parent / "data" / "before-the-move"
EXPECTED = json.loads((EARLIER / "expected.json").read_text())


@pytest.fixture
def earlier(tmp_path, monkeypatch):
    """A copy of what was written, as the current folder."""
    monkeypatch.chdir(shutil.copytree(EARLIER, tmp_path / "earlier"))


def done(*arguments):
    finished = CliRunner().invoke(app, list(map(str, arguments)))
    assert finished.exit_code == 0, finished.stderr or finished.exception
    return finished.stdout


def test_the_cache_verifies(earlier):
    assert "numbers" in done("cache", "info", "--cache", "cache")
    done("cache", "verify", "--cache", "cache")


@pytest.mark.parametrize("run", ["pre-parseq", "pre-ctc"])
def test_a_pretrained_run_reads_its_held_out_words(earlier, run):
    found = json.loads(done("evaluate", run, "--cache", "cache", "--json"))
    assert sorted([r["truth"], r["text"]] for s in found["sets"] for r in s["readings"]) == EXPECTED[run]


def test_a_fine_tuned_run_reads_pictures(earlier):
    found = json.loads(done("read", "fine", "crops", "--json"))
    assert [[Path(one["image"]).name, one["text"]] for one in found] == EXPECTED["fine"]
    assert json.loads(done("evaluate", "fine", "--json"))["sets"][0]["score"]["words"] == 12


def test_a_run_that_was_stopped_goes_on(earlier):
    options = ("--depth", 1, "--batch", 16, "--steps", 12, "--eval-every", 6, "--ema", 0.9, "--precision", "fp32")
    done("pretrain", "--corpus", "numbers", "--bank", "noise", "--out", "stopped", "--cache", "cache", *options)
    lines = [json.loads(line) for line in Path("stopped/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["group"] == "train"]
    assert losses == pytest.approx(EXPECTED["stopped"], abs=1e-3)
