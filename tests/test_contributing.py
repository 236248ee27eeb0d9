"""The recipes of CONTRIBUTING.md, followed word by word: their code, where they say, used from the command line."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import models.decoders
import pipeline.weights
import sources.words
from cli import app
from tests.helpers.pictures import picture
from tests.models.decoders import test_decoders as promises
from tests.train.export.test_export import finetuned
from train.export import export
from train.perturb import KINDS
from train.run import load_run

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()


def code(title: str) -> str:
    """The code block of one recipe."""
    (section,) = re.findall(rf"^### {title}\n(.*?)(?=^### |\Z)", TEXT, re.M | re.S)
    (block,) = re.findall(r"```\w+\n(.*?)```", section, re.S)
    return block


def done(*arguments):
    """What a command prints."""
    finished = CliRunner().invoke(app, list(map(str, arguments)))
    assert finished.exit_code == 0, finished.stderr or finished.exception
    return finished.stdout


@pytest.fixture
def glance(tmp_path, monkeypatch):
    """The decoder of the recipe as a module of models/decoders."""
    (tmp_path / "glance.py").write_text(code("A decoder"))
    monkeypatch.setattr(models.decoders, "__path__", [*models.decoders.__path__, str(tmp_path)])
    yield "glance"
    sys.modules.pop("models.decoders.glance", None)


def test_a_decoder_trains_and_evaluates_by_its_name_alone(glance, cache, tmp_path):
    options = ["--decoder", glance, "--depth", 1, "--heads", 1, "--batch", 32, "--steps", 2, "--device", "cpu"]
    done("pretrain", "--corpus", "numbers", "--cache", cache, *options, "--out", tmp_path / "run")
    assert load_run(tmp_path / "run")[1].model.kind == glance
    found = json.loads(done("evaluate", tmp_path / "run", "--device", "cpu", "--json"))
    assert found["scores"]["words"] > 20


def test_a_decoder_is_exported_to_onnx(glance, tmp_path, say):
    run, _ = finetuned(tmp_path / "run", kind=glance)
    assert export(run, tmp_path / "out", "onnx", say)["pictures_compared"] > 0


@pytest.mark.parametrize(
    "promise",
    [
        promises.test_gradients_reach_every_parameter,
        promises.test_losses_of_parts_of_a_batch_make_that_of_the_whole,
        promises.test_everything_is_initialised,
        promises.test_what_stands_in_padding_does_not_matter,
        promises.test_a_reading_does_not_depend_on_the_rows_beside_it,
        promises.test_it_learns_to_spell,
    ],
)
def test_a_decoder_keeps_what_every_decoder_promises(promise, glance):
    promise(glance)


def test_a_source_of_words(tmp_path, monkeypatch):
    namespace = vars(sources.words)
    monkeypatch.setattr(sources.words, "READERS", dict(sources.words.READERS))
    exec(code("A source of words"), namespace)
    monkeypatch.setattr(sources.words, "_json", namespace["_json"])
    (tmp_path / "words.json").write_text(json.dumps(["street", "Hello", "1984", "street"]))
    small = ["--model", "tiny", "--pretrained", "untrained:1", "--precision", "fp32", "--cache", tmp_path / "cache"]
    found = json.loads(done("embed-text", tmp_path / "words.json", "--corpus", "own", *small, "--json"))
    assert (found["read"], found["new_labels"]) == (4, 3)
    (tmp_path / "broken.json").write_text("[")
    failed = CliRunner().invoke(app, ["embed-text", str(tmp_path / "broken.json"), "--corpus", "own"])
    assert failed.exit_code == 1
    assert "broken.json is not JSON" in failed.stderr


def test_a_perturbation(cache, tmp_path, monkeypatch):
    scope = {"__name__": "blank"}
    exec(code("A perturbation"), scope)
    blank = scope["Blank"]
    rows = blank(0.2)(torch.ones(50, 40, 3), None, torch.Generator().manual_seed(0))[0].sum(-1)
    assert set(rows.flatten().tolist()) == {0.0, 3.0}
    assert float((rows == 0).float().mean()) == pytest.approx(0.2, abs=0.03)
    monkeypatch.setattr("train.perturb.KINDS", [*KINDS, blank])
    asked = ["pretrain", "--corpus", "numbers", "--cache", cache, "--out", tmp_path / "run", "--perturb"]
    done(*asked, "blank(20%)", "--depth", 1, "--heads", 1, "--batch", 32, "--steps", 1, "--device", "cpu")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["resolved"]["perturb"] == {
        "blank": {"share": 0.2}
    }
    failed = CliRunner().invoke(app, list(map(str, [*asked, "blank(2)"])))
    assert failed.exit_code == 2
    assert "blank: share must be from 0 to 1" in failed.stderr


def test_an_encoder(tmp_path, monkeypatch):
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / "small-clip.json").write_text(code("An encoder"))
    monkeypatch.setattr(pipeline.weights, "_MODELS", shipped)
    (tmp_path / "words.txt").write_text("street\nHello\n")
    (tmp_path / "photo.png").write_bytes(picture(0))
    cache = ["--cache", tmp_path / "cache", "--model", "small-clip", "--json"]
    untrained = ["--pretrained", "untrained:0"]
    assert json.loads(done("embed-text", tmp_path / "words.txt", "--corpus", "own", *cache, *untrained))["labels"] == 2
    found = json.loads(done("embed-images", tmp_path / "photo.png", "--bank", "own", *cache, *untrained))
    assert found["shape"] == [17, 64]  # 4 x 4 patches and the class token
    weights = pipeline.weights.build_model("small-clip", "untrained:1").state_dict()
    save_file(weights, shipped / "small-clip.safetensors")
    done("embed-text", tmp_path / "words.txt", "--corpus", "own", *cache, "--pretrained", "shipped")
    names = [space["name"] for space in json.loads(done("cache", "info", *cache[:2], "--json"))["spaces"]]
    assert [re.sub(r"\.\w+$", "", name) for name in names] == ["small-clip.shipped", "small-clip.untrained-0"]
