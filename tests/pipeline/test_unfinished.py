"""What is computed of a shard is kept: a run that is stopped goes on with the next batch, to the same bytes."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import pipeline.embed_text as text_stage
import pipeline.picture_shards as picture_stage
from cache.errors import DptrError
from pipeline import unfinished
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.labels import collect
from pipeline.towers import causal_text
from pipeline.unfinished import ENDING, Unfinished
from tests.helpers.files import file_size_limit
from tests.helpers.pictures import picture
from tests.pipeline.test_embed_text import files

WORDS = [str(n) for n in range(450)]
PICTURES = [(f"{n}.png", picture(n)) for n in range(60)]
EVERY = unfinished.EVERY


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Several batches in a shard, and several shards; each result is written at once."""
    monkeypatch.setattr(text_stage, "SHARD_BYTES", 1 << 16)
    monkeypatch.setattr(picture_stage, "SHARD_BYTES", 1 << 16)
    monkeypatch.setattr(picture_stage, "BATCH", {"cpu": 4})
    monkeypatch.setitem(causal_text.POSITIONS, "cpu", 128)
    monkeypatch.setattr(unfinished, "EVERY", 0.0)


def texts(cache, encoder, say):
    return embed_text(cache, encoder, collect(WORDS), "words", say)


def images(cache, encoder, say):
    return embed_images(cache, encoder, iter(PICTURES), len(PICTURES), "photos", say)


@pytest.fixture
def stopped(monkeypatch):
    """Makes the encoder stop, as Ctrl-C does, at its n-th batch from now; counts the batches that were computed."""
    from pipeline.towers.replicas import Replicas

    compute, state = Replicas._compute, {"left": None, "made": 0}

    def counting(self, n, tensors):
        if state["left"] == 0:
            raise KeyboardInterrupt
        state["left"] = state["left"] and state["left"] - 1
        state["made"] += 1
        return compute(self, n, tensors)

    monkeypatch.setattr(Replicas, "_compute", counting)
    return state


@pytest.mark.parametrize("stage", [texts, images])
@pytest.mark.parametrize("every", [1, 3, 5])
def test_stopped_again_and_again_it_computes_each_batch_once_and_makes_the_same_bytes(
    tmp_path, encoder, say, stopped, stage, every
):
    stage(tmp_path / "whole", encoder, say)
    whole, batches = files(tmp_path / "whole"), stopped["made"]
    stopped["made"] = stops = 0
    asked = every + 3  # room for the self-test of a new space and the trial of a picture
    while True:
        stopped["left"] = asked
        try:
            stage(tmp_path / "cut", encoder, say)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 1
    assert files(tmp_path / "cut") == whole
    assert stopped["made"] - batches == stops * (stage is images)  # whose shape is tried each time


def test_a_full_disk_keeps_what_was_computed(tmp_path, encoder, say, stopped):
    texts(tmp_path / "whole", encoder, say)
    embed_text(tmp_path / "cut", encoder, collect([WORDS[0]]), "words", say)
    shutil.copytree(tmp_path / "cut", tmp_path / "plain")
    texts(tmp_path / "plain", encoder, say)
    stopped["made"] = 0
    with file_size_limit(40_000), pytest.raises(DptrError, match="cannot write"):
        texts(tmp_path / "cut", encoder, say)
    before = stopped["made"]
    texts(tmp_path / "cut", encoder, say)
    assert files(tmp_path / "cut") == files(tmp_path / "plain")
    assert before > 3
    stopped["made"], again = 0, stopped["made"] - before
    texts(tmp_path / "whole2", encoder, say)
    assert again < stopped["made"]  # some came from the file, although the disk was too small for all


def batches(count):
    return [(n, torch.full((2, 3, 4), n, dtype=torch.float16)) for n in range(count)]


def name(n):
    return bytes([n]) * 16


def passed(folder, count, asked, stop=None):
    """Each batch doubled, through an Unfinished; the batches computed are added to `asked`."""

    def compute(coming):
        for n, one in coming:
            if n == stop:
                raise KeyboardInterrupt
            asked.append(n)
            yield n, one * 2

    return Unfinished(folder).through(compute, batches(count), name)


def test_nothing_is_written_of_what_is_quick(tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "EVERY", 30.0)
    assert [n for n, _ in passed(tmp_path, 5, [])] == [0, 1, 2, 3, 4]
    assert not any(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        list(passed(tmp_path, 5, [], stop=3))
    assert len(list(tmp_path.iterdir())) == 1  # but a run that is stopped writes all it has
    asked = []
    list(passed(tmp_path, 5, asked))
    assert asked == [3, 4]


@pytest.mark.parametrize("seconds", [1, 20, 50])  # that a batch takes
def test_no_more_than_half_a_minute_is_ever_unwritten(tmp_path, monkeypatch, seconds):
    asked, size = [], unfinished.HEAD.size + batches(1)[0][1].nbytes
    monkeypatch.setattr(unfinished, "EVERY", EVERY)
    monkeypatch.setattr(unfinished, "time", SimpleNamespace(monotonic=lambda: seconds * len(asked)))
    for n, _ in passed(tmp_path, 80, asked):
        written = sum(path.stat().st_size for path in tmp_path.iterdir()) // size
        assert seconds * (n + 1 - written) < 30
    assert written > 10


@pytest.mark.parametrize("damage", ["cut", "flip", "other", "longer"])
def test_what_is_damaged_or_of_other_batches_is_computed_again(tmp_path, damage):
    expected = [(n, one.numpy() * 2) for n, one in batches(6)]
    with pytest.raises(KeyboardInterrupt):
        list(passed(tmp_path, 6, [], stop=4))
    (path,) = tmp_path.glob(f"*{ENDING}")
    data = bytearray(path.read_bytes())
    size = len(data) // 4
    if damage == "cut":
        del data[3 * size + 40 :]
    elif damage == "flip":
        data[3 * size + 40] ^= 1
    elif damage == "other":
        data[3 * size] ^= 1  # the name of the batch
    else:
        data += b"\0" * 100
    path.write_bytes(data)
    asked = []
    found = list(passed(tmp_path, 6, asked))
    assert asked == ([4, 5] if damage == "longer" else [3, 4, 5])
    for (n, one), (m, other) in zip(found, expected, strict=True):
        assert n == m
        assert np.array_equal(one, other)


def test_what_is_left_of_other_words_goes_away(tmp_path, encoder, say, stopped):
    embed_text(tmp_path, encoder, collect(["a"]), "words", say)
    stopped["left"] = 2
    with pytest.raises(KeyboardInterrupt):
        texts(tmp_path, encoder, say)
    assert list(tmp_path.rglob(f"*{ENDING}"))
    stopped["left"] = None
    embed_text(tmp_path, encoder, collect(["b", "c"]), "words", say)
    assert not list(tmp_path.rglob(f"*{ENDING}"))
