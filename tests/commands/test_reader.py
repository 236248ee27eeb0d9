"""An exported reader on the command line: by its folder, by its name, and without a name."""

import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.commands import run
from train import shipped

EARLIER = Path(__file__).parents[1] / "data" / "before-the-move"  # its run `fine` reads numbers


def done(*arguments, cwd):
    finished = run(*arguments, cwd=cwd)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with a run and word images; its exported half is the shipped reader."""
    shutil.copytree(EARLIER / "fine", tmp_path / "fine")
    shutil.copytree(EARLIER / "crops", tmp_path / "crops")
    out = done("export", "fine", "--out", "shipped/reader", "--half", cwd=tmp_path)
    assert out == "fine written to shipped/reader: model.json, model.safetensors\n"
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "shipped")
    return tmp_path


def texts(out):
    return [line.split("\t")[:2] for line in out.splitlines()]


def readings(out):
    return sorted((one["truth"], one["text"]) for one in json.loads(out)["sets"][0]["readings"])


def test_pictures_are_read_without_naming_a_run(work):
    expected = texts(done("read", "fine", "crops", cwd=work))
    assert len(expected) == 12
    assert texts(done("read", "crops", cwd=work)) == expected
    assert texts(done("read", "crops/1*.png", "crops/20.png", "crops/21.png", cwd=work)) == expected
    for name in ("reader", "shipped/reader"):
        assert texts(done("read", name, "crops", cwd=work)) == expected
    found = json.loads(done("read", "crops/10.png", "--json", cwd=work))
    assert [one["text"] for one in found] == [expected[0][1]]
    done("read", "crops/10.png", "--attention", "looked.png", cwd=work)
    assert (work / "looked.png").stat().st_size > 1000


def test_unsure_words_are_marked(work):
    found = json.loads(done("read", "crops", "--json", cwd=work))
    lines = [line.split("\t") for line in done("read", "crops", cwd=work).splitlines()]
    assert {len(line) for line in lines} == {4}
    for line, one in zip(lines, found, strict=True):
        assert float(line[2]) == pytest.approx(one["confidence"], abs=6e-4)
        assert line[3] == ("?" if one["confidence"] < 0.5 else "")
    assert {line[3] for line in lines} == {"?", ""}


def test_evaluating_and_going_on_by_name(work):
    found = done("evaluate", "reader", "--data", "crops", "--json", cwd=work)
    assert json.loads(found)["errors"] == "reader-errors.html"
    assert "<html" in (work / "reader-errors.html").read_text()
    assert readings(found) == readings(done("evaluate", "fine", "--json", cwd=work))
    assert readings(done("evaluate", "shipped/reader", "--data", "crops", "--json", cwd=work)) == readings(found)
    options = ["--train", "crops", "--val", "crops", "--batch", 6, "--steps", 2, "--workers", 0]
    done("finetune", "--init", "reader", *options, "--out", "more", cwd=work)
    assert json.loads((work / "more" / "config.json").read_text())["resolved"]["pretrained"]["fine_tuned"] == [400]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["read", "fine"], "fine is a run: name the pictures to read after it."),
        (["read", "reader"], "reader is a run: name the pictures to read after it."),
        (["read", "none", "crops"], "there is no run, picture or folder none: check the path."),
        (["read", "crops", "none"], "there is no file or folder none: check the path."),
        (["read", "n*.png"], "no file matches the pattern n*.png"),
        (["evaluate", "reader"], "reader was exported, without its --val: name word images with --data."),
        (["evaluate", "readers"], "--out readers, or use reader, which comes with dptr."),
        (["evaluate", "crops"], "there is no run in crops"),
        (["read", "crops/10.png", "--zero-label"], "reader is a fine-tuned run"),
        (["export", "fine", "--out", "x", "--half", "--format", "onnx"], "--half stores"),
    ],
)
def test_what_is_no_reader_is_said_in_a_sentence(work, arguments, message):
    wrong = run(*arguments, cwd=work)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert message in wrong.stderr


def test_an_installation_without_a_reader(work):
    shutil.rmtree(work / "shipped" / "reader")
    wrong = run("read", "crops", cwd=work)
    assert wrong.returncode == 2
    assert "no reader comes with this installation: name a run that dptr finetune made" in wrong.stderr
