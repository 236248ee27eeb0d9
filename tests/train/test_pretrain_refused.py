"""Pre-training says in one sentence what is wrong, and spoils nothing."""

from dataclasses import replace

import pytest

from cache.errors import DptrError, WrongUse
from train.pretrain import pretrain
from train.run import load_run


@pytest.fixture
def options(pretraining):
    return pretraining


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bank": None, "perturb": "orp(0.1)"}, "orp needs photographs"),
        ({"perturb": "orp(0.1, positions=x)"}, "positions is shared or sample, not x"),
        ({"execution": "x"}, "one of eager, graphs, compiled"),
        ({"execution": "graphs"}, "needs a GPU"),
        ({"heads": 5}, "cannot be split into 5 heads"),
        ({"depth": 0}, "--depth must be more than 0"),
        ({"permutations": 3}, "give 1 or an even number, not 3"),
        ({"steps": 0}, "--steps must be more than 0"),
        ({"lr": -1.0}, "--lr must be more than 0"),
        ({"held_out": 1.5}, "--held-out must be above 0 and below 1"),
        ({"dropout": 1.0}, "--dropout must be at least 0 and below 1"),
        ({"reader": "x"}, "--reader must be one of auto, resident, mapped, streamed, not 'x'"),
        ({"corpus": ["x"]}, "no corpus 'x'"),
        ({"bank": "x"}, "no bank 'x'"),
        ({"space": "x"}, "no space in .* is called 'x'"),
        ({"device": "cuda:99"}, "no GPU|invalid device"),
    ],
)
def test_wrong_use_is_one_sentence_and_makes_no_run(options, changes, message):
    with pytest.raises(WrongUse, match=message):
        pretrain(replace(options, **changes), print)
    assert not options.out.exists()


def test_finished_run_is_not_written_over(options):
    pretrain(options, print)
    with pytest.raises(WrongUse, match="already holds a finished run"):
        pretrain(options, print)


def test_loss_that_is_not_finite_stops_the_run(options):
    with pytest.raises(DptrError, match="the loss is (nan|inf) at step"):
        pretrain(replace(options, lr=1e30, steps=60), print)


def test_no_run_and_damaged_checkpoint(options, tmp_path):
    with pytest.raises(WrongUse, match="there is no run"):
        load_run(tmp_path / "none")
    pretrain(options, print)
    (options.out / "best.pt").write_bytes(b"x")
    with pytest.raises(DptrError, match="best.pt is damaged"):
        load_run(options.out)
    (options.out / "best.pt").unlink()
    with pytest.raises(WrongUse, match="no checkpoint best.pt"):
        load_run(options.out)
