"""The commands that look after a cache, as a person types them."""

import json
import os
import pty
import shutil
import subprocess

import pytest

from tests.helpers.commands import DPTR, run
from tests.helpers.files import flip


@pytest.fixture
def cache(embedded, tmp_path):
    """A copy of a cache with the corpus `numbers` and the bank `photos`."""
    return shutil.copytree(embedded / "dptr-cache", tmp_path / "cache")


def test_verify_says_that_all_is_well(cache):
    done = run("cache", "verify", "--cache", cache, "--encoder")
    assert done.returncode == 0, done.stderr
    assert "4 shards" in done.stdout
    assert "no problems found" in done.stdout
    assert "the encoder is the same; smallest cosines with the stored values: text 1.0000" in done.stdout


def test_verify_names_damage_and_repair_drops_it(cache):
    (path,) = cache.glob("*/memories/00000.h5")
    flip(path)
    name = path.relative_to(cache).as_posix()
    done = run("cache", "verify", "--cache", cache)
    assert done.returncode == 1
    assert f"{name}: it does not match its checksum" in done.stdout
    assert "Traceback" not in done.stderr
    done = run("cache", "verify", "--cache", cache, "--repair", "--json")
    assert done.returncode == 1  # the labels still lack their memories
    summary = json.loads(done.stdout)
    assert [p["path"] for p in summary["problems"]] == [name, name.replace("memories/00000.h5", "corpora/numbers")]
    assert summary["repaired"] == 1
    done = run("cache", "verify", "--cache", cache)
    assert done.returncode == 1
    assert "301 of its 301 labels have no memory" in done.stdout


def test_verify_with_another_encoder_prints_both_values(cache):
    done = run("cache", "verify", "--cache", cache, "--encoder", "--pretrained", "untrained:7")
    assert done.returncode == 1
    assert "untrained_seed: 0 / 7" in done.stderr


def test_gc_shows_and_removes_only_what_is_confirmed(cache):
    drop = ("cache", "gc", "--cache", cache, "--drop-corpus", "numbers")
    done = run(*drop)
    assert done.returncode == 2
    assert "to be dropped: corpora/numbers" in done.stderr
    assert "301 of 301 memories are not used by any corpus" in done.stderr
    assert "nothing was removed: add --yes" in done.stderr
    assert list(cache.glob("*/corpora/numbers/*.h5"))
    done = run(*drop, "--yes")
    assert done.returncode == 0, done.stderr
    assert not list(cache.glob("*/corpora/*"))
    assert not list(cache.glob("*/memories/*.h5"))
    assert "0 bytes can be freed" in run("cache", "gc", "--cache", cache).stderr


def test_gc_asks_a_person(cache):
    """If the input is a terminal."""
    for answer, left in (("n", 1), ("y", 0)):
        keyboard, terminal = pty.openpty()
        os.write(keyboard, f"{answer}\n".encode())
        command = [*DPTR, "cache", "gc", "--cache", str(cache), "--drop-bank", "photos"]
        done = subprocess.run(command, stdin=terminal, capture_output=True, text=True, check=False)
        os.close(keyboard)
        os.close(terminal)
        assert "remove? [y/N]" in done.stderr
        assert "Traceback" not in done.stderr
        assert (done.returncode == 0) == (answer == "y")
        assert len(list(cache.glob("*/banks/*/*.h5"))) == left


def test_export_writes_what_it_says(cache, tmp_path):
    done = run("cache", "export", "--cache", cache, "--corpus", "numbers", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "301 labels of corpus 'numbers' written to" in done.stdout
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "labels.parquet",
        "memories.npy",
        "prefix.npy",
        "space.json",
        "text_projection.npy",
    }
    done = run("cache", "export", "--cache", cache, "--bank", "photos", "--out", tmp_path / "bank", "--json")
    assert json.loads(done.stdout) == {"rows": 3, "files": ["features.npy", "pictures.parquet", "space.json"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "--out", "x"], "choose what to export: give either --corpus"),
        (["export", "--out", "x", "--corpus", "a", "--bank", "b"], "choose what to export: give either --corpus"),
        (["export", "--out", "x", "--corpus", "a"], "dptr-cache holds no encoder's space"),
        (["verify"], "dptr-cache holds no encoder's space"),
        (["gc"], "dptr-cache holds no encoder's space"),
        (["gc", "--space", "x"], "dptr-cache holds no encoder's space"),
    ],
)
def test_wrong_use_is_one_sentence_with_exit_code_2(tmp_path, arguments, message):
    done = run("cache", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_older_cache_is_refused_with_a_sentence(cache):
    (path,) = cache.glob("*/space.json")
    path.write_text('{"model": "wordclip", "format": 1}')
    for command in (["cache", "info"], ["cache", "gc"], ["cache", "verify", "--repair"]):
        done = run(*command, "--cache", cache)
        assert done.returncode == 1
        assert "has cache format 1, and this dptr reads format 2: embed again into a new --cache" in done.stderr


def test_a_cache_is_pushed_looked_at_and_pulled(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("DPTR_DISK", str(tmp_path / "disk"))
    url = f"file://{tmp_path}/elsewhere"
    done = run("cache", "push", cache, url)
    assert done.returncode == 0, done.stderr
    assert f"4 shards, {sum(p.stat().st_size for p in cache.rglob('*.h5')):,} bytes, now also in {url}, " in done.stdout
    ours, theirs = (run("cache", "info", "--cache", one).stdout.splitlines() for one in (cache, url))
    assert theirs == [line for line in ours if not line.startswith("  index")]  # which stays where it is
    done = run("cache", "pull", url, tmp_path / "back", "--json")
    assert json.loads(done.stdout)["shards"] == 4
    assert "no problems found" in run("cache", "verify", "--cache", tmp_path / "back").stdout
    for command in (
        ["embed-text", "words.txt", "--corpus", "x"],
        ["embed-images", "photos", "--bank", "x"],
        ["neighbours", "numbers", "photos"],
        ["cache", "gc"],
        ["cache", "verify"],
    ):
        done = run(*command, "--cache", url)
        assert done.returncode == 2, command
        assert f"needs a cache on disk, and {url}" in done.stderr
        assert "send what is new with dptr cache push" in done.stderr
