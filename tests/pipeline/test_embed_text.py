"""embed-text stores each memory once, goes on where it was stopped, and loses nothing."""

import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import pipeline.embed_text as stage
from cache.errors import DptrError
from cache.memories import MemoryReader
from cache.space import open_space
from pipeline.embed_text import embed_text
from pipeline.labels import collect
from tests.conftest import WORDS
from tests.helpers.files import file_size_limit
from tests.helpers.forks import Forked


def states_of(cache, encoder, corpus, label):
    space = open_space(cache)
    found = space.corpus(corpus)
    number = found.labels().index(label)
    memories = space.memories
    return MemoryReader(memories).gather(memories.find(found.keys()[number : number + 1]))[0]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_memories_are_the_encoders_states(tmp_path, encoder, say):
    done = embed_text(tmp_path, encoder, collect([*WORDS, "cafe"]), "words", say)
    assert (done.labels, done.new_labels, done.new_memories, done.known_memories) == (12, 12, 11, 0)
    for label in WORDS:
        expected = encoder.text_states([encoder.prompt.ids(label)])
        assert np.abs(states_of(tmp_path, encoder, "words", label) - expected).max() < 4e-3
    corpus = open_space(tmp_path).corpus("words")
    assert dict(zip(corpus.labels(), corpus.counts().tolist(), strict=True)) == {**dict.fromkeys(WORDS, 1), "cafe": 2}


def test_full_layout_keeps_78_rows(tmp_path, full_encoder, say):
    embed_text(tmp_path, full_encoder, collect(["street"]), "words", say)
    assert states_of(tmp_path, full_encoder, "words", "street").shape == (78, 64)


def test_case_shares_a_memory_but_not_a_label(tmp_path, encoder, say):
    done = embed_text(tmp_path, encoder, collect(["hello", "HELLO", "Hello"]), "words", say)
    assert (done.labels, done.new_memories) == (3, 1)
    assert len(set(open_space(tmp_path).corpus("words").keys().tolist())) == 1


def test_same_command_twice_changes_no_byte(tmp_path, encoder, say):
    embed_text(tmp_path, encoder, collect(WORDS), "words", say)
    before = files(tmp_path)
    done = embed_text(tmp_path, encoder, collect(WORDS), "words", say)
    assert (done.new_labels, done.new_memories, done.known_memories) == (0, 0, 11)
    assert files(tmp_path) == before


def test_second_corpus_embeds_only_what_is_new(tmp_path, encoder, say):
    embed_text(tmp_path, encoder, collect(WORDS), "first", say)
    before = files(tmp_path)
    done = embed_text(tmp_path, encoder, collect(["street", "new", "newer"]), "second", say)
    assert (done.new_labels, done.new_memories, done.known_memories) == (3, 2, 1)
    assert any("1 of 3 memories already cached; 2 to encode" in line for line in say.lines)
    grown = [n for n, data in before.items() if files(tmp_path)[n] != data]
    assert [Path(n).parts[1:] for n in grown] == [("memories", "manifest.jsonl")]


def test_untrained_weights_are_said(tmp_path, encoder, say):
    embed_text(tmp_path, encoder, collect(WORDS), "words", say)
    assert any("UNTRAINED (seed 1)" in line for line in say.lines)


def test_another_encoder_gets_a_space_beside_and_says_how_it_differs(tmp_path, encoder, full_encoder, say):
    embed_text(tmp_path, encoder, collect(WORDS), "words", say)
    embed_text(tmp_path, full_encoder, collect(WORDS), "words", say)
    assert any("a new space beside" in line and "layout: full / compact" in line for line in say.lines)
    assert len(list(tmp_path.iterdir())) == 2


def test_prompt_longer_than_the_context_is_counted(tmp_path, encoder, say):
    labels = collect(["ok", "$%&" * 40], max_length=200)
    done = embed_text(tmp_path, encoder, labels, "words", say)
    assert done.dropped == {"with a prompt longer than the encoder's context": 1}
    assert done.labels == 1


def test_nothing_usable_is_an_error_and_makes_no_cache(tmp_path, encoder, say):
    with pytest.raises(DptrError, match="no usable word"):
        embed_text(tmp_path / "new", encoder, collect(["", "汉"]), "words", say)
    assert not (tmp_path / "new").exists()


def test_too_small_a_disk_is_noticed_before_the_work(tmp_path, encoder, say, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(DptrError, match=r"needs 67\.1 MB and its disk has 1\.0 kB free"):
        embed_text(tmp_path / "new", encoder, collect(WORDS), "words", say)
    assert not (tmp_path / "new").exists()


def test_full_disk_on_the_way_keeps_what_was_committed(tmp_path, encoder, say, monkeypatch):
    labels = collect(map(str, range(3000)))
    embed_text(tmp_path / "whole", encoder, labels, "words", say)
    embed_text(tmp_path / "cut", encoder, collect(["0"]), "words", say)
    before = files(tmp_path / "cut")
    with file_size_limit(100_000), pytest.raises(DptrError, match="cannot write"):
        embed_text(tmp_path / "cut", encoder, labels, "words", say)
    assert files(tmp_path / "cut") == before
    done = embed_text(tmp_path / "cut", encoder, labels, "words", say)
    assert done.new_memories == 2999


def work_to_be_killed(cache):
    from pipeline.encoder import Encoder

    stage.SHARD_BYTES = 1 << 16
    encoder = Encoder("wordclip", "untrained:1", precision="fp32", device="cpu")
    print("begun", flush=True)
    embed_text(cache, encoder, collect(map(str, range(1500))), "words", str)


def test_killed_run_continues_to_the_same_bytes(tmp_path, say, monkeypatch):
    """SIGKILL at several moments; the finished cache equals that of an undisturbed run, byte for byte."""
    from pipeline.encoder import Encoder

    monkeypatch.setattr(stage, "SHARD_BYTES", 1 << 16)
    encoder = Encoder("wordclip", "untrained:1", precision="fp32", device="cpu")
    embed_text(tmp_path / "whole", encoder, collect(map(str, range(1500))), "words", say)
    killed = 0
    for wait in (0.05, 0.2, 0.5):
        process = Forked(tmp_path / f"after {wait}", work_to_be_killed, tmp_path / "cut")
        process.wait_until("begun")
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        killed += process.wait().returncode == -signal.SIGKILL
    assert killed
    embed_text(tmp_path / "cut", encoder, collect(map(str, range(1500))), "words", say)
    whole, cut = files(tmp_path / "whole"), files(tmp_path / "cut")
    assert {n for n in cut if not n.endswith(".tmp")} == set(whole)
    assert [n for n, data in whole.items() if cut[n] != data] == []
    assert sum("memories" in n for n in whole) > 10
