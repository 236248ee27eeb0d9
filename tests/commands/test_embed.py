"""The command line as a person types it: both of its names, its summaries, errors and exit codes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cache.space import open_space
from tests.helpers.commands import DPTR, SMALL, run, start

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, str(ROOT / "cli.py")]


@pytest.fixture(scope="module")
def work(embedded, tmp_path_factory):
    """A copy of it, to be written to."""
    return shutil.copytree(embedded, tmp_path_factory.mktemp("work"), dirs_exist_ok=True)


def test_summaries_say_what_was_done_and_lost(work):
    out = (work / "text.out").read_text()
    assert "corpus 'numbers': 301 labels added; 301 memories encoded" in out
    assert "dropped: 1 longer than 25 characters" in out
    assert "dropped: 1 empty" in out
    told = (work / "text.err").read_text()
    assert "UNTRAINED" in told
    assert "301 to encode" in told
    assert "free on the disk" in told
    out = (work / "images.out").read_text()
    assert "3 pictures added" in out
    assert "skipped: broken.jpg: it is not a picture" in out


def test_embedding_again_embeds_nothing(work):
    done = run("embed-text", "words.txt", "--corpus", "numbers", *SMALL, "--json", cwd=work)
    summary = json.loads(done.stdout)
    assert (summary["new_memories"], summary["known_memories"], summary["new_labels"]) == (0, 301, 0)
    assert summary["dropped"] == {"empty": 1, "longer than 25 characters": 1}


def test_replacing_says_what_went(work):
    (work / "corrected.txt").write_text("street\nexit\n")
    for words, said in (("corrected.txt", "2 labels added, 0 removed"), ("words.txt", "301 labels added, 2 removed")):
        done = run("embed-text", words, "--corpus", "list", "--replace", *SMALL, cwd=work)
        assert f"corpus 'list': {said} (their memories stay cached); " in done.stdout
    for photos, said in (("photos", "3 pictures added"), ("photos/1.png", "0 pictures added")):
        done = run("embed-images", photos, "--bank", "list", "--replace", *SMALL, cwd=work)
        assert f"bank 'list': {said} in " in done.stdout
    assert " s, 2 removed, 1 known" in done.stdout


def test_spaces_within_labels_are_kept_if_asked_for(work):
    (work / "spaces.txt").write_text("New  York\n")
    run("embed-text", "spaces.txt", "--corpus", "spaces", "--keep-spaces", *SMALL, cwd=work)
    assert open_space(work / "dptr-cache").corpus("spaces").labels() == ["New York"]


def test_words_are_made_up_beside_those_that_are_listed(work):
    both = [run("embed-text", "words.txt", "--corpus", "hard", "--hard-words", "0.5", *SMALL, cwd=work) for _ in "ab"]
    added = [int(done.stdout.split("corpus 'hard': ")[1].split(" labels")[0]) for done in both]
    assert 500 < added[0] <= 602
    assert f"{added[0]:,} different labels; {added[0] - 301:,} of them made up" in both[0].stderr
    assert added[1] == 0
    assert (
        "from 0 to below 1" in run("embed-text", "words.txt", "--corpus", "hard", "--hard-words", "1", cwd=work).stderr
    )


def test_python_cli_does_what_dptr_does(work):
    one, other = (start("cache", "info", "--json", program=program, cwd=work) for program in (DPTR, CLI))
    assert (one.returncode, other.returncode) == (0, 0), other.stderr
    assert json.loads(one.stdout) == json.loads(other.stdout)
    assert one.stdout.count("numbers") == 1


def test_pretrain_evaluate_and_info(work):
    options = ["--corpus", "numbers", "--bank", "photos", "--depth", "1", "--width", "64", "--batch", "32"]
    done = run("pretrain", *options, "--steps", "4", "--out", "run", "--json", cwd=work)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 4
    done = run("evaluate", "run", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "held-out words of numbers" in done.stdout
    assert json.loads(run("evaluate", "run", "--limit", "3", "--json", cwd=work).stdout)["scores"]["words"] == 3
    done = run("cache", "info", cwd=work)
    assert "corpus    numbers" in done.stdout
    assert "(1 skipped)" in done.stdout
    (space,) = json.loads(run("cache", "info", "--json", cwd=work).stdout)["spaces"]
    assert space["fingerprint"]["pretrained"] == "untrained:0"


def test_help_loads_nothing_heavy():
    code = "import sys, cli; cli.app(['--help'], standalone_mode=False); "
    code += "print([m for m in ('torch', 'open_clip', 'numpy', 'h5py', 'datasets', 'tqdm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "embed-text" in done.stdout
    assert done.stdout.strip().endswith("[]")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["embed-text", "none.txt", "--corpus", "x"], 2, "there is no file none.txt"),
        (["embed-text", "empty.txt", "--corpus", "x"], 1, "no usable word in empty.txt"),
        (["embed-text", "counts.txt", "--corpus", "x"], 1, "column 1 is taken for the words"),
        (["embed-text", "gt.txt", "--corpus", "x"], 2, "say which part is the word"),
        (["embed-text", "words.txt"], 2, "--corpus"),
        (["embed-text", "words.txt", "--corpus", "../x", *SMALL], 2, "cannot name a corpus"),
        (["embed-text", "words.txt", "--corpus", "x", "--model", "nope"], 2, "open_clip has no model 'nope'"),
        (
            ["embed-text", "words.txt", "--corpus", "x", "--model", "ViT-B-16"],
            2,
            "ships no weights for ViT-B-16",
        ),
        (["embed-text", "words.txt", "--corpus", "x", "--model", "ViT-B-16", "--pretrained", "openai"], 2, "QuickGELU"),
        (["embed-images", "none/", "--bank", "x"], 2, "there is no file or folder 'none/'"),
        (["embed-images", "none.tar", "--bank", "x"], 2, "there is no file or folder none.tar"),
        (["embed-images", "nothing", "--bank", "x"], 2, "there are no pictures in nothing"),
        (["embed-images", "words.txt", "--bank", "x", *SMALL], 1, "none of 1 files could be read as a picture"),
        (["pretrain", "--corpus", "x", "--out", "r"], 2, "there is no corpus 'x'"),
        (["pretrain", "--corpus", "numbers", "--out", "r", "--cache", "none"], 2, "none holds no encoder's space"),
        (["evaluate", "none"], 2, "there is no run in none"),
        (["cache", "info", "--cache", "none"], 2, "there is no cache in none"),
        (["embed-text", "words.txt", "--corpus", "x", "--on", "slurm:few"], 2, "--on slurm:few is not known"),
        (["no-such-command"], 2, "No such command"),
    ],
)
def test_what_a_person_gets_wrong_is_one_sentence(work, arguments, code, message):
    (work / "empty.txt").write_text("\n\n")
    (work / "counts.txt").write_text("x" * 30 + "\t5\n")
    (work / "gt.txt").write_text("1.png\tHello\n")
    (work / "nothing").mkdir(exist_ok=True)
    done = run(*arguments, cwd=work)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_installed_command_says_it_in_one_sentence_too(work):
    done = start("cache", "info", "--cache", "none", cwd=work)
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no cache in none" in done.stderr
    assert "Traceback" not in done.stderr


def test_folder_that_cannot_be_written_is_one_sentence(work):
    (work / "file").write_text("x")
    for command in (["embed-images", "photos", "--bank", "x"], ["embed-text", "words.txt", "--corpus", "x"]):
        for cache, message in (
            ("file", "cannot be a folder, because file is a file"),
            ("file/cache", "cannot be a folder, because"),
            ("/proc/cache", "cannot be written"),
        ):
            done = run(*command, "--cache", cache, *SMALL, cwd=work)
            assert done.returncode == 2
            assert f"--cache {cache} {message}" in done.stderr
            assert "loading" not in done.stderr
    for out, message in (("file", "file is a file"), ("/proc/run", "cannot be written"), ("r\udcff", "UTF-8")):
        done = run("pretrain", "--corpus", "numbers", "--out", out, cwd=work)
        assert done.returncode == 2
        assert message in done.stderr


def test_bytes_that_are_not_utf8_do_no_harm(work):
    """In an argument, which then stands in the lock; and on a terminal, which gets them escaped."""
    (work / "w\udcff.txt").write_text("street\n")
    done = run("embed-text", "w\udcff.txt", "--corpus", "x", "--cache", "c\udcff", *SMALL, cwd=work)
    assert done.returncode == 0, done.stderr
    done = start("cache", "verify", "--repair", "--cache", "c\udcff", cwd=work)  # takes the lock
    assert done.returncode == 0, done.stderr
    done = start("cache", "info", "--cache", "no\udcff\x1b[31m", cwd=work)
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no cache in no\\udcff\\x1b[31m: make one" in done.stderr


def test_help_in_ascii_shows_other_letters_escaped():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*CLI, "pretrain", "--help"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\\u221a2" in done.stdout
    environment |= {"PYTHONIOENCODING": "", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([*CLI, "cache", "info", "--cache", "é"], env=environment, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"there is no cache in" in done.stderr


@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.2, 0.4])
def test_ctrl_c_at_the_start_prints_no_traceback(seconds):
    """From the first line of dptr's own on; Python's start, before that, is not in its hands."""
    code = "import sys; sys.argv = ['dptr', 'cache', 'info']; print('up', flush=True); import cli; cli.main()"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as process:
        assert process.stdout.readline() == "up\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
    assert "Traceback" not in told


def test_pictures_known_are_not_said_to_be_there(work):
    """Three of six are repeats, and the bank is empty."""
    (work / "twice").mkdir()
    for n in range(6):
        (work / "twice" / f"{n}.png").write_bytes((work / "photos" / f"{n % 3}.png").read_bytes())
    (work / "twice" / "a\nname\x1b.png").write_bytes(b"broken")
    done = run("embed-images", "twice", "--bank", "twice", *SMALL, cwd=work)
    assert "3 pictures added" in done.stdout
    assert "\n  skipped: a\\nname\\x1b.png: it is not a picture\n" in done.stdout
    assert "3 known (in the bank, or given twice)" in done.stdout
