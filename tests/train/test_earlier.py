"""A run goes on with another length, or with batches of another size, as what it says of itself tells."""

import json
import os
import shutil
import signal
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

import pytest

import train.loop
import train.recorder
import train.step
from cache.errors import WrongUse
from tests.helpers.pictures import NUMBERS
from tests.train.test_resume import equal, figures, weights
from train.data.plan import Plan
from train.earlier import Stretch, lead, planned, shown, stretches
from train.finetune import finetune
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions
from train.step import Pace, one_cycle
from train.stopping import Stopped

STEP = train.step.Step.__call__


@pytest.fixture
def options(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(train.loop, "LOG_EVERY", 1)
    monkeypatch.setattr(train.recorder, "draw_curves", lambda *_: None)  # half a second a run
    return PretrainOptions(
        ["numbers"], tmp_path / "run", cache=cache, bank="noise", depth=1, heads=2, batch=64, steps=12, device="cpu",
        precision="fp32", lr=2e-3, eval_every=10,
    )  # fmt: skip


def watched(work, stop=None):
    """What the steps of `work` were given: (step, learning rate, labels). A signal stops it at the step `stop`."""
    seen = []

    def noted(self, number, loss, batch, *more):
        if number == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        value = STEP(self, number, loss, batch, *more)
        seen.append((number, self.rate, list(batch.labels)))
        return value

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.step.Step, "__call__", noted)
        with pytest.raises(Stopped, match=f"stopped at step {stop} of") if stop else nullcontext():
            work()
    return seen


def config(run):
    return json.loads((run / "config.json").read_text())


def learnt(run):
    return [line for line in figures(run) if line[1] == "train"]


def test_more_steps_go_on_in_the_schedule_of_the_new_length(options, tmp_path, monkeypatch, say):
    """As a run does whose rate is that of 12 steps up to step 12 and that of 20 after it; also when it is stopped."""
    pretrain(options, print)
    more = replace(options, steps=20)
    watched(lambda: pretrain(more, say), 15)
    (line,) = [line for line in say.lines if "it was to show" in line]
    assert "768 words, 64 a step; now it is to show 1,280, 64 a step, of which 768 are shown" in line
    say.lines.clear()
    assert pretrain(more, say).steps == 20
    assert "continuing from step 15" in say.lines
    assert not any("it was to show" in line for line in say.lines)
    whole = replace(more, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Pace, "rate", lambda _, step, peak: one_cycle(step - 1, 12 if step <= 12 else 20, peak))
        pretrain(whole, print)
    assert learnt(more.out) == learnt(whole.out)
    assert equal(weights(more.out), weights(whole.out))
    assert config(more.out)["resolved"]["steps"] == config(more.out)["options"]["steps"] == 20
    earlier = {"until": 12, "drawn": 12, "steps": 12, "batch": 64, "lr": 2e-3, "eval_every": 10, "ranks": 1}
    assert config(more.out)["earlier"] == [earlier]
    assert "earlier" not in config(whole.out)


def test_a_run_that_has_nothing_to_do_says_so_and_is_left_alone(options):
    pretrain(options, print)
    before = config(options.out), figures(options.out)
    with pytest.raises(WrongUse, match="already holds a finished run: raise --steps or --epochs to go on"):
        pretrain(options, print)
    with pytest.raises(WrongUse, match="has shown 768 words in 12 steps already, and this command asks for 704 in all"):
        pretrain(replace(options, steps=11), print)
    with pytest.raises(WrongUse, match="best.pt holds weights alone: continue from a step-"):
        pretrain(replace(options, steps=20, resume=str(options.out / "best.pt")), print)
    assert before == (config(options.out), figures(options.out))


def test_another_batch_goes_on_with_the_words_not_seen(options, tmp_path, say):
    """Its rate follows the words shown, and it can be stopped like any other run."""
    first = replace(options, steps=None, epochs=2.0, lr=None)
    seen = watched(lambda: pretrain(first, print), 4)
    other = replace(first, batch=48)
    again, texts = replace(other, out=tmp_path / "again"), []
    shutil.copytree(first.out, again.out)
    seen += watched(lambda: pretrain(other, texts.append))
    words = config(first.out)["resolved"]["training_words"]
    assert any("the rest of the epoch is cut into batches of the new size" in line for line in texts)
    shown_once, taken = Counter(), 0
    for _, _, labels in seen:
        taken += len(labels)
        if taken <= words:
            shown_once.update(labels)
    assert (len(shown_once), shown_once.total()) == (words, words)
    length = round(-(-words // 48) * 2)
    peaks = {64: 7e-4 * 2**0.5 * 64 / 256, 48: 7e-4 * 2**0.5 * 48 / 256}
    for step, rate, _ in seen[4:]:
        at = (4 * 64 + (step - 5) * 48) / 48  # steps of 48 that show as many words
        assert rate == pytest.approx(one_cycle(min(at, length - 1), length, peaks[48]))
    assert seen[3][1] == pytest.approx(one_cycle(3, -(-words // 64) * 2, peaks[64]))
    assert length * 48 <= 4 * 64 + (len(seen) - 4) * 48 < (length + 1) * 48
    assert config(first.out)["earlier"][0]["batch"] == 64
    watched(lambda: pretrain(again, print), 9)
    pretrain(again, print)
    assert learnt(again.out) == learnt(first.out)
    assert equal(weights(again.out), weights(first.out))


def test_fine_tuning_goes_on_with_more_steps_and_another_batch(finetuning, material, say):
    first = replace(finetuning, epochs=1.0, steps=None, lr=1e-3)
    seen = watched(lambda: finetune(first, material, print), 3)
    seen += watched(lambda: finetune(replace(first, batch=10, epochs=2.0), material, say))
    assert [len(labels) for _, _, labels in seen] == [16] * 3 + [10, 10, 10, 10, 2] + [10] * 9
    assert sorted(label for _, _, labels in seen[:8] for label in labels) == NUMBERS
    assert sorted(label for _, _, labels in seen[8:] for label in labels) == NUMBERS
    assert any("no word is left out or shown twice" in line for line in say.lines)
    with pytest.raises(WrongUse, match=r"\(that run / this command\): augment \(1.0 / 0.5\); seed \(0 / 1\)\."):
        finetune(replace(first, batch=10, epochs=3.0, seed=1, augment=0.5), material, print)


def one(until, steps=10, batch=8, drawn=None):
    return Stretch(until, until if drawn is None else drawn, steps, batch, 1e-3, 1)


@pytest.mark.parametrize(
    ("earlier", "before", "now", "found"),
    [
        ([], one(0), one(0, 20), []),  # stopped before the first checkpoint
        ([], one(5), one(5), []),
        ([], one(5), one(5, 20), [one(5)]),
        ([one(5)], one(7, 20), one(7, 20), [one(5)]),
        ([one(5)], one(7, 20), one(7, 30), [one(5), one(7, 20)]),
        ([one(5)], one(5, 20), one(5, 30), [one(5)]),  # no step was taken as it was last
        ([one(5)], one(5, 20), one(5), []),
        ([one(5)], one(3, 20), one(3, 20), [one(3)]),  # an earlier checkpoint
        ([one(5), one(7, batch=4)], one(9), one(9, 12, drawn=11), [one(5), one(7, batch=4), one(9)]),
    ],
)
def test_stretches_are_what_was_done(earlier, before, now, found):
    assert list(stretches(earlier, before, now)) == found


def test_words_shown_are_those_of_all_stretches():
    some = [one(5, batch=8), one(7, batch=2, drawn=8), one(8, batch=16, drawn=9)]
    assert [shown(some, step, 4) for step in (8, 9, 10)] == [60, 64, 68]
    assert lead(some, 4) == 60 / 4 - 8
    assert lead([], 4) == 0
    plan = planned(Plan(4, 0, 1, 2), some)
    assert plan == Plan(4, 0, 1, 2, (Plan(16, 0, before=(Plan(2, 0, before=(Plan(8, 0), 5)), 8)), 9))
    longer = [one(5), one(7, 20)]
    assert planned(Plan(8, 0), longer) == Plan(8, 0)
    assert Pace(20, 1, "cpu", "fp32", lead=lead(longer, 8)).last == 20
    assert Pace(20, 1, "cpu", "fp32", lead=0.5).last == 20
    assert Pace(20, 1, "cpu", "fp32", lead=1.0).last == 19
