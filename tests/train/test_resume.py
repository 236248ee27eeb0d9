"""A run that was stopped anywhere goes on as if it had not been, number for number."""

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import train.loop
import train.recorder
import train.step
from cache.errors import DptrError, WrongUse
from models.decoders import DecoderConfig, make
from tests.helpers.commands import run
from tests.helpers.forks import Forked
from tests.helpers.stopped import stopped_at
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions
from train.run import LAST, load_checkpoint, steps_of
from train.stopping import Stopped


def short(cache: Path, out: Path) -> PretrainOptions:
    return PretrainOptions(
        ["numbers"], out, cache=cache, bank="noise", bank_reader="streamed", depth=1, heads=2, batch=32, steps=33,
        eval_every=12, device="cpu", precision="fp32", lr=2e-3,
    )  # fmt: skip


@pytest.fixture
def options(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(train.loop, "LOG_EVERY", 5)
    monkeypatch.setattr(train.recorder, "draw_curves", lambda *_: None)  # half a second; `whole` draws its own
    return short(cache, tmp_path / "run")


def figures(run: Path) -> list[tuple]:
    """All that is logged and does not depend on the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(x["step"], x["group"], x.get("loss"), x.get("lr"), x.get("word_accuracy"), x.get("ned")) for x in lines]


def weights(run: Path, checkpoint: str = LAST) -> dict:
    return load_checkpoint(run, checkpoint)["model"]


def equal(a: dict, b: dict) -> bool:
    return all(torch.equal(a[name], b[name]) for name in {*a, *b})


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    """The undisturbed run and its summary. Not to be written to."""
    options = short(cache, tmp_path_factory.mktemp("whole") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.loop, "LOG_EVERY", 5)
        return options.out, pretrain(options, print)


@pytest.fixture(scope="module")
def long(cache, tmp_path_factory):
    """The same of a run that lives long enough to be killed."""
    options = replace(short(cache, tmp_path_factory.mktemp("long") / "run"), batch=16, steps=120, eval_every=24)
    pretrain(options, print)
    return options


@pytest.mark.parametrize("stop", [1, 12, 17, 24, 32])
def test_stopped_and_continued_is_the_undisturbed_run(options, whole, stop):
    with stopped_at(stop, 33) as stopped:
        pretrain(options, print)
    assert stopped.value.exit_code == 143
    lines = []
    summary = pretrain(options, lines.append)
    assert f"continuing from step {stop}" in lines
    assert figures(options.out) == figures(whole[0])
    assert equal(weights(options.out), weights(whole[0]))
    assert equal(weights(options.out, "best.pt"), weights(whole[0], "best.pt"))
    assert (summary.loss, summary.best_step, summary.scores) == (
        whole[1].loss,
        whole[1].best_step,
        whole[1].scores,
    )


def test_average_of_the_weights_is_what_it_says_and_goes_on(options, tmp_path, monkeypatch):
    """Compared with an average computed from the weights of every step."""
    seen, step = [], train.step.Step.__call__

    def noted(self, number, *more):
        loss = step(self, number, *more)
        seen.append([p.detach().clone() for p in self.model.parameters()])
        if number == 17 and len(seen) == 17:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    monkeypatch.setattr(train.step.Step, "__call__", noted)
    averaged = replace(options, ema=0.9, eval_every=33)
    with pytest.raises(Stopped) as stopped:
        pretrain(averaged, print)
    assert stopped.value.exit_code == 130
    pretrain(averaged, print)
    assert len(seen) == 33
    torch.manual_seed(averaged.seed)
    first = list(make(configured(averaged.out)).parameters())
    expected = [p.detach().clone() for p in first]
    for number, weights_then in enumerate(seen, 1):
        decay = min(0.9, (1 + number) / (10 + number))
        expected = [decay * a + (1 - decay) * b for a, b in zip(expected, weights_then, strict=True)]
    best, last = load_checkpoint(averaged.out), load_checkpoint(averaged.out, LAST)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(expected, best["model"].values(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(seen[-1], last["model"].values(), strict=True))


def configured(run: Path) -> DecoderConfig:
    return DecoderConfig.of(json.loads((run / "config.json").read_text())["decoder"])


def command(options: PretrainOptions, *more: str) -> list[str]:
    given = ["--cache", options.cache, "--corpus", "numbers", "--bank", "noise", "--out", options.out, "--depth", 1]
    given += [
        "--bank-reader",
        options.bank_reader,
        "--heads",
        2,
        "--batch",
        options.batch,
        "--steps",
        options.steps,
        "--eval-every",
        options.eval_every,
    ]
    return [str(x) for x in ("pretrain", *given, "--lr", 2e-3, "--device", "cpu", "--precision", "fp32", *more)]


def first_checkpoint(run: Path) -> None:
    """Waits for it, five minutes at most: a machine that does other things as well takes one to import torch."""
    deadline = time.monotonic() + 300
    while not steps_of(run) and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_processes_go_on(long, tmp_path, number):
    killed = replace(long, out=tmp_path / "run")
    process = Forked.module(tmp_path / "printed", "cli", *command(killed))
    first_checkpoint(killed.out)
    time.sleep(0.15)
    process.send_signal(number)
    done = process.wait()
    reached = load_checkpoint(killed.out, LAST)["step"]
    assert 0 < reached < 120
    if number == signal.SIGKILL:
        assert done.returncode == -number
    else:
        assert done.returncode == 128 + number
        assert f"stopped at step {reached}" in done.stderr
        assert "Traceback" not in done.stderr
    again = run(*command(killed))
    assert again.returncode == 0, again.stderr
    assert f"continuing from step {reached:,}" in again.stderr
    assert figures(killed.out) == figures(long.out)
    assert equal(weights(killed.out), weights(long.out))


def test_last_checkpoints_and_the_best_are_kept(whole):
    run, summary = whole
    assert [p.name for p in steps_of(run)] == ["step-00000012.pt", "step-00000024.pt", "step-00000033.pt"]
    saved = load_checkpoint(run, "best.pt")
    assert saved["step"] == summary.best_step
    assert "training" not in saved
    config = load_checkpoint(run, LAST)["config"]
    assert config["options"]["seed"] == 0
    assert config["fingerprint"]["weights"]
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    rows = [line.split("\t") for line in (run / "held-out.tsv").read_text().splitlines()]
    assert rows[0] == ["error", "word", "reading"]
    errors = [float(row[0]) for row in rows[1:]]
    assert errors == sorted(errors, reverse=True)
    assert len(errors) == summary.held_out


def test_a_checkpoint_of_another_folder_goes_on_in_this_one(options, whole):
    other = replace(options, resume=str(whole[0] / "step-00000012.pt"))
    pretrain(other, print)
    assert equal(weights(other.out), weights(whole[0]))
    assert [line for line in figures(other.out) if line[0] > 15] == [x for x in figures(whole[0]) if x[0] > 15]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "already holds a finished run"),
        ({"resume": "never"}, "already holds a run: choose another --out"),
        ({"depth": 2, "lr": 1e-3}, "a different configuration .*decoder .*depth .1 / 2.; lr .0.002 / 0.001."),
        ({"resume": "nowhere.pt"}, "there is no run or checkpoint nowhere.pt"),
    ],
)
def test_what_cannot_be_continued_is_refused_and_left_alone(options, whole, changes, message):
    before = figures(whole[0])
    with pytest.raises(WrongUse, match=message):
        pretrain(replace(options, out=whole[0], **changes), print)
    assert figures(whole[0]) == before


def test_a_damaged_checkpoint_is_named(options, whole):
    shutil.copytree(whole[0], options.out)
    (options.out / "step-00000033.pt").unlink()
    (options.out / "step-00000024.pt").write_bytes(b"x")
    with pytest.raises(DptrError, match="step-00000024.pt is damaged"):
        pretrain(options, print)


def test_a_loss_that_is_not_finite_names_step_words_and_checkpoint(options, monkeypatch):
    from models.decoders.parseq import Decoder

    loss, calls = Decoder.loss, []

    def poisoned(self, *arguments):
        calls.append(1)
        return loss(self, *arguments) * (float("nan") if len(calls) == 18 else 1)

    monkeypatch.setattr(Decoder, "loss", poisoned)
    with pytest.raises(DptrError, match=r"the loss is nan at step 18, on the words '\d+', .*checkpoint is .*00012.pt"):
        pretrain(options, print)


def test_run_that_waits_for_a_batch_stops_at_once(options, whole, monkeypatch):
    """As finetune does while workers prepare large pictures; it goes on as if it had not been stopped."""
    import train.pretrain

    made = train.pretrain.batches

    def slow(*arguments):
        for batch in made(*arguments):
            if batch.number == 17:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.1)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(train.pretrain, "batches", slow)
        with pytest.raises(Stopped, match="stopped at step 1[5-7] of 33"):
            pretrain(options, print)
    pretrain(options, print)
    assert figures(options.out) == figures(whole[0])
    assert equal(weights(options.out), weights(whole[0]))
