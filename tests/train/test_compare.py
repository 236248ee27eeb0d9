"""Comparing perturbations: cells are run once, and what is beyond chance is told by Student's interval."""

import json

import pytest

from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from tests.helpers.commands import run
from tests.helpers.pictures import drawn
from train.comparison import markdown, table_of

KINDS = ["none", "gaussian(50%)"]
OPTIONS = ["--corpus", "numbers", "--cache", "cache", "--depth", 1, "--heads", 2, "--batch", 16, "--steps", 3]
OPTIONS += ["--device", "cpu", "--precision", "fp32", "--data", "crops", "--train", "crops", "--finetune-steps", 2]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    encoder = Encoder("tiny-wide", "untrained:1", precision="fp32", layout="shared")
    embed_text(folder / "cache", encoder, collect(map(str, range(300))), "numbers", print)
    (folder / "crops").mkdir()
    for n in range(20, 32):
        (folder / "crops" / f"{n}.png").write_bytes(drawn(str(n)))
    (folder / "crops" / "labels.tsv").write_text("".join(f"{n}.png\t{n}\n" for n in range(20, 32)))
    return folder


def compared(work, *more, kinds=KINDS):
    asked = [part for kind in kinds for part in ("--perturb", kind)]
    return run("compare", *OPTIONS, *asked, "--out", "found", *more, cwd=work)


@pytest.fixture(scope="module")
def once(work):
    """What the command printed when each kind had been run with one seed."""
    return compared(work, "--seeds", 1, "--json")


def test_every_cell_is_run_once(work, once):
    done = once
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)
    assert list(first) == KINDS
    assert all(list(cells) == ["held out", "zero-label", "fine-tuned"] for cells in first.values())
    assert first["none"]["held out"]["margin"] is None
    lines = (work / "found" / "results.jsonl").read_text().splitlines()
    assert [(json.loads(line)["perturb"], json.loads(line)["seed"]) for line in lines] == [(k, 0) for k in KINDS]
    made = [json.loads((work / "found" / f"{n}-seed-0" / "config.json").read_text())["options"] for n in (1, 2)]
    assert [one["perturb"] for one in made] == KINDS

    again = compared(work, "--seeds", 2)
    assert again.returncode == 0, again.stderr
    assert (work / "found" / "results.jsonl").read_text().splitlines()[:2] == lines
    assert len((work / "found" / "results.jsonl").read_text().splitlines()) == 4
    assert "1 of 2: none, seed 1" in again.stderr
    assert (work / "found" / "table.md").read_text().strip() in again.stdout
    assert "| `gaussian(50%)` | 2 |" in again.stdout
    assert (work / "found" / "plot.png").stat().st_size > 5000


def test_a_cell_is_a_run_like_any_other(work, once):
    """Its accuracies are those that the usual commands report."""
    (line, *_) = (work / "found" / "results.jsonl").read_text().splitlines()
    found = json.loads(line)["accuracy"]
    asked = ["--cache", "cache", "--data", "crops", "--zero-label", "--device", "cpu", "--json"]
    zero = json.loads(run("evaluate", "found/1-seed-0", *asked, cwd=work).stdout)["scores"]
    assert found["zero-label"] == zero["accuracy_36"]
    asked = ["--data", "crops", "--device", "cpu", "--json"]
    tuned = json.loads(run("evaluate", "found/1-seed-0/finetuned", *asked, cwd=work).stdout)["scores"]
    assert found["fine-tuned"] == tuned["accuracy_36"]


@pytest.mark.parametrize(
    ("more", "kinds", "said"),
    [
        (["--lr", 0.5], KINDS, "have another --lr: choose another --out"),
        ([], [], "nothing to compare"),
        ([], ["none", "none"], "given twice"),
        ([], ["none", "gaussian(50%"], "--perturb"),
        (["--seeds", 0], KINDS, "more than 0"),
    ],
)
def test_wrong_use_is_one_sentence(work, once, more, kinds, said):
    done = compared(work, *more, kinds=kinds)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_gain_is_beyond_chance_by_students_interval():
    """(2, 4, 6) against (1, 2, 3): pooled variance 2.5, four degrees of freedom, t = 2.776."""

    def results(kind, *percents):
        return [{"perturb": kind, "seed": n, "accuracy": {"x": p / 100}} for n, p in enumerate(percents)]

    table = table_of(results("a", 1, 2, 3) + results("b", 2, 4, 6) + results("c", 11, 12, 13), ["a", "b", "c"])
    assert table["b"]["x"].gain == pytest.approx(2)
    assert table["b"]["x"].spread == pytest.approx(2)
    assert table["b"]["x"].margin == pytest.approx(2.776 * (2.5 * 2 / 3) ** 0.5)
    assert not table["b"]["x"].beyond_chance
    assert table["c"]["x"].beyond_chance
    assert markdown(table).splitlines()[2:] == [
        "| `a` | 3 | 2.0 ± 1.0 |  |", "| `b` | 3 | 4.0 ± 2.0 | +2.0 |", "| `c` | 3 | 12.0 ± 1.0 | +10.0* |",
    ]  # fmt: skip
