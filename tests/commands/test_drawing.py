"""`dptr finetune --train drawn:WORDS`: where words, fonts and photographs come from."""

import json
import random
import re
import shutil
from dataclasses import replace

import pytest

from cache.errors import WrongUse
from cache.space import spaces
from commands.drawing import words_to_draw
from commands.gather import training_sets
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from tests.helpers.commands import run
from tests.helpers.drawing import font_folder
from tests.helpers.pictures import drawn, picture
from train.finetune_options import FinetuneOptions
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions

WORDS = ["street", "hotel", "cafe", "station", "漢字"]


@pytest.fixture(scope="module")
def work(cache, tmp_path_factory):
    """A pre-trained run, words, a folder of fonts, photographs and labelled pictures."""
    work = tmp_path_factory.mktemp("work")
    first = PretrainOptions(["numbers"], work / "run", cache=cache, depth=1, heads=2, batch=32, steps=1, device="cpu")
    pretrain(first, print)
    font_folder(work)
    (work / "words.txt").write_text("\n".join(WORDS))
    for folder, pictures in (("photos", [picture(1, (96, 120))]), ("val", [drawn(word) for word in WORDS[:4]])):
        (work / folder).mkdir()
        for n, data in enumerate(pictures):
            (work / folder / f"{n}.png").write_bytes(data)
    (work / "val" / "labels.tsv").write_text("".join(f"{n}.png\t{word}\n" for n, word in enumerate(WORDS[:4])))
    return work


def finetune(work, out, words, *more, val="val"):
    given = ("--init", "run", "--train", f"drawn:{words}", "--val", val, "--out", out, "--batch", 4, "--steps", 2)
    given += ("--image-size", "16x64", "--eval-words", 2)
    return run("finetune", *given, "--device", "cpu", "--workers", 0, "--json", *more, cwd=work)


def test_words_of_a_file_are_drawn(work, tmp_path):
    done = finetune(work, tmp_path / "run", "words.txt", "--fonts", "fonts", "--behind", "photos", "--train", "val")
    assert done.returncode == 0, done.stderr
    assert "drawn:words.txt: 7 words to draw, 30% of them hard ones, in 1 font, on 1 photograph" in done.stderr
    assert "1 training crops not used: without any ASCII character" in done.stderr
    summary = json.loads(done.stdout)
    assert (summary["crops"], summary["steps"]) == (10, 2)


def test_words_of_a_corpus_are_drawn(work, tmp_path):
    done = finetune(work, tmp_path / "run", "numbers", "--fonts", "fonts", "--hard-words", 0)
    assert done.returncode == 0, done.stderr
    assert "drawn:numbers: 900 words to draw, 0% of them hard ones, in 1 font, on plain colours" in done.stderr


def test_a_corpus_that_is_the_same_in_two_spaces_is_one(cache, tmp_path):
    (space,) = spaces(cache)
    for name in ("one", "two"):
        shutil.copytree(space.folder, tmp_path / "both" / name)
    assert words_to_draw("numbers", tmp_path / "both", "train") == [str(n) for n in range(900)]
    for number in (1, 2):
        wide = Encoder("tiny", f"untrained:{number}", precision="fp32")
        embed_text(tmp_path / "other", wide, collect(["a", str(number)]), "numbers", print)
    with pytest.raises(WrongUse, match="corpus 'numbers' differs between the spaces of .*: name the file of its words"):
        words_to_draw("numbers", tmp_path / "other", "train")


def test_words_are_drawn_for_the_charset_that_is_asked_for(work):
    """Not for that of the run, which has no space."""
    (work / "two.txt").write_text("new york\n")
    options = FinetuneOptions(
        work / "run", [f"drawn:{work / 'two.txt'}"], ["x"], work / "x", fonts=[str(work / "fonts")], hard_words=0.0
    )
    for space_char, label in ((False, "newyork"), (True, "new york")):
        ((one,),) = training_sets(replace(options, space_char=space_char), None, "train")
        _, written = one.draw(0, random.Random(0), (16, 64))
        assert written.casefold() == label


@pytest.mark.parametrize(
    ("words", "more", "message"),
    [
        ("nothing", [], "there is no file 'nothing', and no such corpus in .*, which has numbers."),
        ("nothing.txt", [], "there is no file nothing.txt"),
        ("words.txt", ["--fonts", "none"], "there is no folder none with fonts"),
        ("words.txt", ["--fonts", "photos"], "there is no legible font below photos"),
        ("words.txt", ["--fonts", "fonts", "--behind", "none.jpg"], "there is no file or folder none.jpg"),
    ],
)
def test_wrong_use_is_one_sentence(work, tmp_path, words, more, message):
    done = finetune(work, tmp_path / "run", words, *more)
    assert done.returncode == 2, done.stderr
    assert re.search(message, done.stderr)
    assert not (tmp_path / "run").exists()


def draw(work, *more):
    return run("draw", "words.txt", "--fonts", "fonts", "--count", 5, "--workers", 1, *more, cwd=work)


def test_pictures_drawn_ahead_are_trained_on(work, tmp_path):
    done = draw(work, "--out", tmp_path / "drawn", "--size", "16x64", "--json")
    assert done.returncode == 0, done.stderr
    assert "1 words not drawn: without any ASCII character" in done.stderr
    assert json.loads(done.stdout)["count"] == 5
    tuned = finetune(work, tmp_path / "run", "words.txt", "--fonts", "fonts", "--train", tmp_path / "drawn")
    assert tuned.returncode == 0, tuned.stderr
    assert json.loads(tuned.stdout)["crops"] == 6 + 5
    again = draw(work, "--out", tmp_path / "drawn")
    assert again.returncode == 2
    assert "drawn is there already: choose another --out" in again.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--size", "32"], "--size must be rows x columns, such as 32x128, not '32'."),
        (["--hard-words", 1], "--hard-words must be from 0 to below 1, not 1."),
        (["--charset", "none"], "there is no charset 'none'"),
        (["--fonts", "none"], "there is no folder none with fonts"),
    ],
)
def test_wrong_use_of_draw_is_one_sentence(work, tmp_path, more, message):
    done = draw(work, "--out", tmp_path / "drawn", *more)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert not list(tmp_path.iterdir())
