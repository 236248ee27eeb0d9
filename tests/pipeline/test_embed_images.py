"""embed-images keeps order, counts what it cannot read, and stores each picture once, all decoded alike."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.bank import picture_key
from cache.errors import DptrError
from cache.keys import key_bytes
from cache.space import open_space
from models.charset import Charset
from pipeline.embed_crops import embed_crops
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.labels import collect
from pipeline.picture_shards import Tally, embed_into
from sources.labelled import Labelled
from sources.missing import NoPicture
from sources.pictures import decode
from tests.helpers.files import file_size_limit
from tests.helpers.pictures import picture
from tests.pipeline.test_embed_text import files
from tests.train.reading.test_read import tiny
from train.data.crop_batches import CachedTokens
from train.data.crops import usable

EARLIER = Path(__file__).parents[1] / "data" / "before-the-move"


def pictures(numbers):
    return [(f"{n}.png", picture(n)) for n in numbers]


def test_features_are_the_encoders_in_the_order_of_the_source(tmp_path, encoder, say, monkeypatch):
    monkeypatch.setattr("pipeline.picture_shards.BATCH", {"cpu": 4})
    monkeypatch.setattr("pipeline.picture_shards.SHARD_BYTES", 20_000)
    done = embed_images(tmp_path, encoder, pictures(range(30)), 30, "noise", say)
    assert (done.read, done.new, done.known, done.skipped, done.shape) == (30, 30, 0, {}, [17, 64])
    bank = open_space(tmp_path).bank("noise")
    assert bank.ids() == [f"{n}.png" for n in range(30)]
    assert [e.rows for e in bank.entries] == [8, 8, 8, 6]  # whole batches that fit
    for n in (0, 7, 29):
        expected = encoder.image_tokens(encoder.preprocess(decode(picture(n)))[None])[0]
        assert np.abs(bank.features()[n] - expected).max() < 4e-3


def test_unreadable_pictures_are_named_and_do_not_stop_the_run(tmp_path, encoder, say):
    bad = {"empty.jpg": b"", "text.png": b"hello", "cut.png": picture(9)[:200], "empty-too.jpg": b""}
    bad |= {"zero.png": NoPicture("it is a device"), "gone.png": NoPicture("there is no such file")}
    found = [("first.png", b"x"), *pictures([1]), *bad.items(), *pictures([2, 1])]
    done = embed_images(tmp_path, encoder, found, len(found), "noise", say)
    assert (done.read, done.new, done.known) == (10, 2, 1)
    assert [done.skipped[name] for name in ("zero.png", "gone.png")] == ["it is a device", "there is no such file"]
    assert list(done.skipped) == ["first.png", *bad]
    assert open_space(tmp_path).bank("noise").skipped() == done.skipped


def test_none_readable_is_an_error_and_makes_nothing(tmp_path, encoder, say):
    with pytest.raises(DptrError, match=r"none of 2 files could be read as a picture \(a: it is not a picture"):
        embed_images(tmp_path, encoder, [("a", b"x"), ("b", b"")], 2, "noise", say)
    assert list(tmp_path.iterdir()) == []


def test_known_pictures_are_not_embedded_again(tmp_path, encoder, say):
    embed_images(tmp_path, encoder, pictures(range(5)), 5, "noise", say)
    before = files(tmp_path)
    done = embed_images(tmp_path, encoder, pictures(range(5)), 5, "noise", say)
    assert (done.new, done.known) == (0, 5)
    assert files(tmp_path) == before
    done = embed_images(tmp_path, encoder, pictures([4, 5, 5]), None, "noise", say)
    assert (done.new, done.known) == (1, 2)
    bank = open_space(tmp_path).bank("noise")
    assert bank.rows == 6
    import faiss

    assert faiss.read_index(str(bank.folder / "index.faiss")).ntotal == 6


def test_a_write_that_fails_leaves_no_thread_behind(tmp_path, encoder, say, monkeypatch):
    """Also while its error is held: threads that the garbage collector has to end may wait for each other for ever."""
    monkeypatch.setattr("pipeline.picture_shards.BATCH", {"cpu": 4})
    monkeypatch.setattr("pipeline.picture_shards.SHARD_BYTES", 20_000)
    embed_images(tmp_path, encoder, pictures([0]), 1, "noise", say)
    before = set(threading.enumerate())
    with file_size_limit(10_000), pytest.raises(DptrError, match="cannot write") as held:
        embed_images(tmp_path, encoder, pictures(range(60)), 60, "noise", say)
    assert set(threading.enumerate()) == before
    assert held.tb


def test_a_picture_whose_key_ends_in_a_zero_byte_is_known_again(tmp_path, encoder, say):
    """numpy's byte strings lose zeros at their end; a PNG may end in anything."""
    versions = (picture(1) + n.to_bytes(2, "little") for n in range(1 << 16))
    one = next(data for data in versions if picture_key(data).endswith(b"\0"))
    embed_images(tmp_path, encoder, [("a", one)], 1, "noise", say)
    bank = open_space(tmp_path).bank("noise")
    assert bank.keys().tolist() == [picture_key(one).rstrip(b"\0")]
    assert key_bytes(bank.keys()) == [picture_key(one)]
    assert embed_images(tmp_path, encoder, [("b", one)], 1, "noise", say).known == 1
    crops = usable([Labelled("set", ["a"], lambda n: one)], Charset(), 25)
    (batch,) = CachedTokens(bank).batches(crops, [[0]])
    assert torch.equal(batch.pictures[0], torch.from_numpy(bank.features()[0]))


def test_a_bank_that_was_decoded_otherwise_takes_no_more(encoder):
    bank = open_space(EARLIER / "cache").bank("noise")
    assert bank.decoding() == ""
    with pytest.raises(DptrError, match="then: not recorded; .*gc --drop-bank noise, and run this"):
        embed_into(bank, encoder, [], (9, 32), Tally())


def test_frozen_crops_that_were_decoded_otherwise_are_not_used(encoder, tmp_path, say, monkeypatch):
    embed_text(tmp_path, encoder, collect(["a"]), "one", say)
    space, tower = open_space(tmp_path), tiny().encoder
    crops = (space, tower, torch.device("cpu"), [("a", picture(1))], 1, say)
    monkeypatch.setattr("pipeline.picture_shards.DECODING", "upside down")
    assert embed_crops(*crops).decoding() == "upside down"
    assert embed_crops(*crops).rows == 1
    monkeypatch.undo()
    with pytest.raises(DptrError, match="then: upside down; .*gc --drop-crops 16x64, and"):
        embed_crops(*crops)
    again = embed_text(tmp_path, encoder, collect(["a", "b"]), "one", say)  # words do not depend on it
    assert (again.known_memories, again.new_memories) == (1, 1)


def test_tower_without_tokens_is_wrong_use(tiny_models, tmp_path, say):
    from cache.errors import WrongUse
    from pipeline.encoder import Encoder

    with pytest.raises(WrongUse, match="no vision transformer"):
        embed_images(tmp_path, Encoder("RN50", "untrained:0"), pictures([1]), 1, "noise", say)
    assert list(tmp_path.iterdir()) == []
