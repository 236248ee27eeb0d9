"""The commands that read pictures, as a person types them: finetune, evaluate, read, export."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.commands import run
from tests.helpers.lmdbs import write_lmdb
from tests.helpers.pictures import drawn

NUMBERS = [str(n) for n in range(10, 40)]
TINY = ["--model", "tiny", "--pretrained", "untrained:0"]
DATA = ["--train", "train", "--val", "val", "--out", "x"]


def done(*arguments, cwd):
    finished = run(*arguments, cwd=cwd)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a pre-trained run, word images in two kinds of source, and a fine-tuned run."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "words.txt").write_text("\n".join(map(str, range(300))))
    write_lmdb(folder / "train", [*NUMBERS, "汉字"], [*(drawn(n) for n in NUMBERS), b"no picture"])
    (folder / "val").mkdir()
    (folder / "val" / "labels.tsv").write_text("".join(f"{n}.png\t{n}\n" for n in NUMBERS[:6]) + "gone.png\t7\n")
    for n in NUMBERS[:6]:
        (folder / "val" / f"{n}.png").write_bytes(drawn(n))
    done("embed-text", "words.txt", "--corpus", "numbers", *TINY, cwd=folder)
    done("pretrain", "--corpus", "numbers", "--out", "pre", "--depth", 1, "--batch", 32, "--steps", 3, cwd=folder)
    out = done(
        *("finetune", "--init", "pre", "--train", "train", "--val", "val", "--out", "fine"),
        *("--batch", 10, "--steps", 4, "--eval-every", 2),
        cwd=folder,
    )
    assert "run fine: 4 steps in" in out
    return folder


def test_evaluation_of_a_fine_tuned_run(work):
    out = done("evaluate", "fine", cwd=work)  # on its own --val
    assert "val: 1 left out: there is no such file" in out
    assert "misread words: fine/errors.html" in out
    assert "<html" in (work / "fine" / "errors.html").read_text()
    found = json.loads(
        done(
            "evaluate",
            "fine",
            "--data",
            "train",
            "--data",
            "val",
            "--limit",
            4,
            "--errors",
            "e.html",
            "--json",
            cwd=work,
        )
    )
    assert [(s["name"], s["score"]["words"]) for s in found["sets"]] == [("train", 4), ("val", 3)]
    assert (work / "e.html").exists()


def test_evaluation_of_a_pretrained_run(work):
    assert "held-out words of numbers" in done("evaluate", "pre", cwd=work)
    (work / "more.txt").write_text("street\nCafé\n12\n")
    found = json.loads(done("evaluate", "pre", "--data", "more.txt", "--data", "train", "--json", cwd=work))
    assert [(s["name"], s["score"]["words"]) for s in found["sets"]] == [("more.txt", 3), ("train", 30)]
    assert {r["truth"] for r in found["sets"][0]["readings"]} == {"street", "Cafe", "12"}
    assert found["sets"][1]["left_out"] == {"without any ASCII character": 1}


def test_reading_pictures(work):
    out = done("read", "fine", "val/10.png", "val", cwd=work)
    lines = [line.split("\t") for line in out.splitlines()]
    assert [Path(line[0]).name for line in lines] == ["10.png", *(f"{n}.png" for n in NUMBERS[:6])]
    assert all(0 <= float(line[2]) <= 1 for line in lines)
    found = json.loads(done("read", "fine", "val/1*.png", "--json", "--attention", "look.png", cwd=work))
    assert len(found) == 6
    assert found[0]["text"] == lines[0][1]
    assert all(len(one["characters"]) == len(one["text"]) for one in found)
    with Image.open(work / "look.png") as drawing:
        assert drawing.width > 100
    (work / "bad.png").write_bytes(b"x")
    bad = run("read", "fine", "bad.png", cwd=work)
    assert (bad.returncode, bad.stdout) == (1, "")
    assert "bad.png: it is not a picture" in bad.stderr
    (work / "also\nbad\x1b.png").write_bytes(b"x")
    (work / "and\ngood\t\x1b.png").write_bytes((work / "val" / "11.png").read_bytes())
    some = run("read", "fine", "val/10.png", "bad.png", "also\nbad\x1b.png", "and\ngood\t\x1b.png", cwd=work)
    assert some.returncode == 1
    assert [line.split("\t")[:2] for line in some.stdout.splitlines()] == [
        ["val/10.png", found[0]["text"]],
        ["and\\ngood\\t\\x1b.png", found[1]["text"]],
    ]
    assert "also\\nbad\\x1b.png: it is not" in some.stderr
    assert "2 of 4 pictures could not be read" in some.stderr


def test_frozen_encoder_from_the_command_line(work):
    options = ["--train", "train", "--val", "val", "--batch", 10, "--steps", 2, "--freeze", "--no-fmu"]
    done("finetune", "--init", "pre", *options, "--out", "frozen", cwd=work)
    assert "crops     32x32" in done("cache", "info", cwd=work)
    again = run("finetune", "--init", "pre", *options, "--out", "frozen2", cwd=work)
    assert "30 already cached" in again.stderr  # the watched ones are among them
    done("cache", "verify", cwd=work)
    assert "val" in done("evaluate", "frozen", cwd=work)


@pytest.mark.parametrize("kind", ["safetensors", "openocr"])
def test_export(work, kind):
    found = json.loads(done("export", "fine", "--out", f"out-{kind}", "--format", kind, "--json", cwd=work))
    assert found["files"]
    assert all((work / f"out-{kind}" / name).stat().st_size for name in found["files"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["finetune", "--init", "none", *DATA], 2, "there is no run in none"),
        (["finetune", "--init", "fine", *DATA, "--freeze"], 2, "is a fine-tuned run, which goes on as it is"),
        (["finetune", "--init", "pre", *DATA, "--train", "pre"], 2, "holds no word images"),
        (["finetune", "--init", "pre", *DATA, "--image-size", "32"], 2, "rows x columns"),
        (["evaluate", "fine", "--data", "pre"], 2, "holds no word images"),
        (["evaluate", "none"], 2, "there is no run in none"),
        (["read", "pre", "val"], 2, "is a pre-trained run"),
        (["read", "fine", "nothing.png"], 2, "nothing.png"),
        (["export", "fine", "--out", "x", "--format", "y"], 2, "safetensors, openocr"),
    ],
)
def test_what_a_person_gets_wrong_is_one_sentence(work, arguments, code, message):
    wrong = run(*arguments, cwd=work)
    assert wrong.returncode == code, wrong.stderr
    assert message in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert not (work / "x").exists()


def test_charset_beyond_ascii_goes_all_the_way(tmp_path):
    """Vietnamese, from words to reading: nothing is folded to ASCII."""
    labels = ["đường", "phố", "Hà", "Nội", "chợ", "bưu", "điện", "nhà", "hàng", "Sài", "Gòn", "quán"]
    (tmp_path / "words.txt").write_text("\n".join(labels * 1))
    (tmp_path / "charset.txt").write_text("".join(sorted(set("".join(labels)))))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "labels.tsv").write_text("".join(f"{n}.png\t{w}\n" for n, w in enumerate(labels)))
    for n, word in enumerate(labels):
        (tmp_path / "set" / f"{n}.png").write_bytes(drawn(word.encode("ascii", "ignore").decode()))
    done("embed-text", "words.txt", "--corpus", "vi", "--unicode", *TINY, cwd=tmp_path)
    options = ["--charset", "charset.txt", "--depth", 1, "--batch", 8, "--steps", 2, "--held-out", 0.3]
    done("pretrain", "--corpus", "vi", "--out", "pre", *options, cwd=tmp_path)
    done(
        "finetune",
        *["--init", "pre", "--train", "set", "--val", "set", "--out", "fine", "--batch", "6", "--steps", "2"],
        cwd=tmp_path,
    )
    found = json.loads(done("evaluate", "fine", "--json", cwd=tmp_path))
    assert {r["truth"] for r in found["sets"][0]["readings"]} == set(labels)
