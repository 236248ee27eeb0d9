"""Several ranks learn what one does, stop together, and go on with another number of them."""

import json
import signal
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.commands import run
from tests.helpers.forks import Forked
from tests.train.test_resume import command, figures, first_checkpoint
from train.pretrain_options import PretrainOptions
from train.run import LAST, load_checkpoint

PLAIN = ["--dropout", "0", "--perturb", "none", "--permutations", "2", "--reader", "streamed"]
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
CLI = str(Path(__file__).parents[2] / "cli.py")


def ranks(options: PretrainOptions, folder: Path) -> list[subprocess.CompletedProcess]:
    """Two ranks with the environment that torchrun gives them, to their end."""
    with socket.socket() as one:
        one.bind(("localhost", 0))
        port = one.getsockname()[1]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    numbered = [{**place, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    started = [Forked.module(folder / one["RANK"], "cli", *command(options, *PLAIN), **one) for one in numbered]
    return [process.wait() for process in started]


def assert_close(first: Path, second: Path) -> None:
    """Two runs have the same losses but for the order of summation."""
    for a, b in zip(figures(first), figures(second), strict=True):
        assert a[:2] == b[:2]
        if a[1] == "train":
            assert abs(a[2] - b[2]) < 1e-4


@pytest.fixture(scope="module")
def two(cache, tmp_path_factory):
    """A run of two ranks without dropout, perturbation or random orders, so that nothing depends on the rank.

    The last batch of an epoch has one word, so none for the second rank.
    """
    folder = tmp_path_factory.mktemp("ranks")
    options = PretrainOptions(["numbers"], folder / "two", cache=cache, batch=57, steps=60, eval_every=15)
    done = ranks(options, folder)
    assert [one.returncode for one in done] == [0, 0], done
    assert json.loads((options.out / "config.json").read_text())["resolved"]["training_words"] % 57 == 1
    return options, done


def test_two_ranks_learn_what_one_does(two, tmp_path):
    options, both = two
    one = replace(options, out=tmp_path / "one")
    alone = run(*command(one, *PLAIN))
    assert alone.returncode == 0, alone.stderr
    assert "2 ranks, which share the 57 words of each step" in both[0].stderr
    assert both[0].stdout.count("run ") == 1
    assert (both[1].stdout, both[1].stderr) == ("", "")  # one rank speaks
    assert_close(one.out, options.out)
    assert len(list((options.out / "tensorboard").glob("events*"))) == 1


def test_ranks_that_are_stopped_go_on_as_one(two, tmp_path):
    """Started and stopped by torchrun."""
    again = replace(two[0], out=tmp_path / "again")
    process = Forked.module(tmp_path / "torchrun", *TORCHRUN, CLI, *command(again, *PLAIN))
    first_checkpoint(again.out)
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert 0 < load_checkpoint(again.out, LAST)["step"] < 60
    alone = run(*command(again, *PLAIN))
    assert alone.returncode == 0, alone.stderr
    assert "continuing from step" in alone.stderr
    assert "it had 2 ranks and has 1 from now on" in alone.stderr
    assert_close(again.out, two[0].out)
