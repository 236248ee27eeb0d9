"""Pre-training learns to read memories and writes its run folder, and is the same however it reads."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cache.errors import DptrError
from cache.space import open_space
from cache.transfer import push
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.labels import collect
from tests.helpers.pictures import picture
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions
from train.reading.evaluate import evaluate
from train.reading.result import table
from train.recorder import settled_reader
from train.run import load_run


@pytest.fixture
def options(pretraining):
    return pretraining


@pytest.fixture(scope="module")
def trained(cache, tmp_path_factory):
    """A run long enough to read numbers it never saw, perturbed."""
    out = tmp_path_factory.mktemp("runs") / "numbers"
    options = PretrainOptions(
        ["numbers"], out, cache=cache, bank="noise", perturb="orp(10%)", depth=1, heads=2, batch=64, steps=300, lr=4e-3,
        permutations=2, held_out=0.1, eval_every=150, device="cpu", precision="fp32",
    )  # fmt: skip
    lines = []
    summary = pretrain(options, lines.append)
    return out, summary, lines


def test_held_out_numbers_are_read(trained):
    _, summary, _ = trained
    assert summary.words + summary.held_out == 900
    assert summary.scores["word_accuracy"] > 0.7
    assert summary.scores["character_error"] < 0.2


def test_run_folder_holds_everything(trained, cache):
    out, summary, _ = trained
    config = json.loads((out / "config.json").read_text())
    assert config["options"]["steps"] == config["resolved"]["steps"] == 300
    assert config["space"] == open_space(cache).name
    orp = config["resolved"]["perturb"]["orp"]
    assert orp["lambda"] == pytest.approx(0.1 * orp["memory_norm"] / orp["bank_norm"])
    assert orp["relative"] == pytest.approx(0.1)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines if x["group"] == "held_out"] == [150, 300]
    assert [x["step"] for x in lines if x["group"] == "train"] == list(range(50, 301, 50))
    assert lines[0]["loss"] > lines[-2]["loss"]
    assert list((out / "tensorboard").glob("events*"))
    decoder, saved, step = load_run(out)
    assert (saved.to_dict(), step) == (config, summary.best_step)
    assert decoder.config.memory_width == 64


def test_both_strengths_are_said(trained):
    _, _, lines = trained
    assert any("λ = " in line and "moves rows by 10.0%" in line for line in lines)


def test_evaluation_agrees_with_the_run(trained):
    out, summary, _ = trained
    done = evaluate(out, device="cpu")
    assert done.scores.words == summary.held_out
    assert done.scores.word_accuracy == pytest.approx(summary.scores["word_accuracy"], abs=0.02)
    assert sum(s.words for s in done.by_length.values()) == done.scores.words
    text = table(done, 3)
    assert "1-NED" in text
    assert f"{done.scores.words:,}" in text
    assert json.loads(json.dumps(done.to_dict()))["scores"]["words"] == done.scores.words


def test_evaluation_refuses_another_encoders_cache(trained, full_encoder, tmp_path):
    embed_text(tmp_path, full_encoder, collect(map(str, range(50))), "numbers", print)
    with pytest.raises(DptrError, match="features of different encoders cannot be mixed.*layout: compact / full"):
        evaluate(trained[0], cache=tmp_path)


def test_same_seed_gives_the_same_losses(options, tmp_path):
    losses = [pretrain(replace(options, out=tmp_path / name), print).loss for name in ("a", "b")]
    assert losses[0] == losses[1]
    assert pretrain(replace(options, out=tmp_path / "c", seed=1), print).loss != losses[0]


def test_readers_train_alike(options, tmp_path):
    """Resident and mapped show the same words in the same order; each reader is printed and recorded."""
    found = {}
    for name in ("auto", "resident", "mapped", "streamed"):
        lines = []
        found[name] = pretrain(replace(options, reader=name, out=tmp_path / name), lines.append).loss
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["machine"]["reader"] == ("resident" if name == "auto" else name)
        assert f"reader {config['machine']['reader']}: {config['machine']['reader_why']}" in lines
    assert found["auto"] == found["resident"] == found["mapped"]
    assert found["streamed"] == pytest.approx(found["mapped"], rel=0.2)


def test_bank_readers_train_alike(options, tmp_path):
    """Resident and mapped draw the same photographs; a run keeps the reader that it began with."""
    found = {}
    for name in ("auto", "resident", "mapped", "streamed"):
        found[name] = pretrain(replace(options, bank_reader=name, out=tmp_path / name), print).loss
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["machine"]["bank_reader"] == ("resident" if name == "auto" else name)
        assert settled_reader("auto", tmp_path / name, "bank_reader") == config["machine"]["bank_reader"]
    assert found["auto"] == found["resident"] == found["mapped"] != found["streamed"]
    assert found["streamed"] == pytest.approx(found["mapped"], rel=0.2)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(
    "changes", [{"bank": None}, {"perturb": "orp(0.5, positions=sample)"}, {"width": 48, "heads": 3}]
)
def test_shapes_and_strengths_run(options, depth, changes):
    summary = pretrain(replace(options, depth=depth, **changes), print)
    assert summary.steps == 3
    assert summary.scores["ned"] >= 0


def test_full_layout_and_unequal_widths_run(options, full_encoder, tmp_path, tiny_models):
    from pipeline.encoder import Encoder

    for name, encoder in (("full", full_encoder), ("wide", Encoder("tiny-wide", "untrained:0", precision="fp32"))):
        embed_text(tmp_path / name, encoder, collect(map(str, range(200))), "numbers", print)
        embed_images(tmp_path / name, encoder, [("0.png", picture(0))], 1, "noise", print)
        one = replace(options, cache=tmp_path / name, out=tmp_path / f"run-{name}")
        if name == "wide":
            with pytest.raises(DptrError, match="32 values per token but memory rows have 64"):
                pretrain(one, print)
            one = replace(one, bank=None)
        assert pretrain(one, print).steps == 3


def test_training_leaves_torch_as_it_was(options):
    """What the same process embeds afterwards must not differ, down to the last bit."""
    before = torch.backends.cuda.flash_sdp_enabled()
    pretrain(options, str)
    assert before
    assert torch.backends.cuda.flash_sdp_enabled()


@pytest.mark.parametrize("reader", ["streamed", "resident"])
def test_a_cache_elsewhere_trains_alike(options, tmp_path, monkeypatch, reader):
    monkeypatch.setenv("DPTR_DISK", str(tmp_path / "disk"))
    url = Path(f"file://{tmp_path}/elsewhere")
    push(options.cache, url, None).run(lambda count: None)
    options = replace(options, reader=reader, bank_reader=reader, perturb="orp(10%)")
    here = pretrain(options, print)
    away = pretrain(replace(options, cache=url, out=tmp_path / "away"), print)
    assert (away.loss, away.scores) == (here.loss, here.scores)
    config = json.loads((tmp_path / "away" / "config.json").read_text())
    assert config["options"]["cache"] == f"file://{tmp_path}/elsewhere"
    assert evaluate(tmp_path / "away", device="cpu").scores == evaluate(tmp_path / "run", device="cpu").scores


@pytest.mark.gpu
def test_gpu_runs(options):
    assert pretrain(replace(options, device="cuda"), print).steps == 3


@pytest.mark.parametrize(("accuracy", "best"), [(0.02, 4), (0.009, 3), (0.0, 3)])
def test_best_of_equal_accuracies_is_by_1_ned_and_then_by_loss(options, monkeypatch, accuracy, best):
    """Few words are ever right: 1-NED decides, and where that is equal too, the loss. Where none is, the loss alone."""
    import train.pretrain
    from train.loop import Loop

    neds = iter([0.1, 0.3, 0.2, 0.3, 0.3])
    losses = iter([5.0, 4.0, 1.0, 2.0, 2.5])
    scored, report = train.pretrain.scored, Loop._report

    def poor(readings):
        return replace(scored(readings), word_accuracy=accuracy, ignoring_case=accuracy, ned=next(neds))

    def reported(self, bar):
        report(self, bar)
        self.progress.loss = next(losses)

    monkeypatch.setattr(train.pretrain, "scored", poor)
    monkeypatch.setattr(Loop, "_report", reported)
    lines = []
    done = pretrain(replace(options, steps=5, eval_every=1), lines.append)
    assert done.best_step == load_run(options.out)[2] == best
    assert "this shows 160 words" in "".join(lines)
    assert accuracy or lines[-1].startswith("no held-out word was read right after 160 words: show it 100,000 or more")
