"""Several ranks learn what one does, and resume together."""

import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.helpers.commands import run
from tests.train.test_resume import command, figures, first_checkpoint, started
from train.pretrain_options import PretrainOptions
from train.run import LAST, load_checkpoint

PLAIN = ["--dropout", "0", "--orp", "0", "--permutations", "2"]
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def ranks(options: PretrainOptions) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *TWO, *command(options, *PLAIN)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def two(cache, tmp_path_factory):
    """A run of two ranks without dropout, perturbation or random orders, so that nothing depends on the rank."""
    out = tmp_path_factory.mktemp("ranks") / "two"
    options = PretrainOptions(["numbers"], out, cache=cache, steps=160, eval_every=40)
    done = ranks(options)
    assert done.returncode == 0, done.stderr
    return options, done


def test_two_ranks_learn_what_one_does(two, tmp_path):
    options, both = two
    one = replace(options, out=tmp_path / "one")
    alone = run(*command(one, *PLAIN)[1:])
    assert alone.returncode == 0, alone.stderr
    assert "2 ranks with 32 words per step each" in both.stderr
    assert both.stdout.count("run ") == 1  # one rank speaks
    for a, b in zip(figures(one.out), figures(options.out), strict=True):
        assert a[:2] == b[:2]
        if a[1] == "train":
            assert abs(a[2] - b[2]) < 1e-4
    assert len(list((options.out / "tensorboard").glob("events*"))) == 1


def test_stopped_ranks_go_on_together(two, tmp_path):
    again = replace(two[0], out=tmp_path / "again")
    process = started([*TWO, *command(again, *PLAIN)])
    first_checkpoint(again.out)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert 0 < load_checkpoint(again.out, LAST)["step"] < 160
    done = ranks(again)
    assert "continuing from step" in done.stderr
    assert figures(again.out) == figures(two[0].out)
