"""embed-images keeps order, counts what it cannot read, and stores each picture once, all decoded alike."""

import threading
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from cache.bank import picture_key
from cache.errors import DptrError, WrongUse
from cache.keys import key_bytes
from cache.space import open_space
from models.charset import Charset
from pipeline.embed_crops import embed_crops
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from pipeline.picture_shards import Tally, embed_into
from pipeline.text_score import WITH, WITHOUT, TextScore
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


def test_pictures_with_text_are_left_out_and_named(tmp_path, encoder, say, monkeypatch):
    """The score is open_clip's own zero-shot probability; a shard of pictures that are all left out is not written."""
    monkeypatch.setattr("pipeline.picture_shards.BATCH", {"cpu": 4})
    monkeypatch.setattr("pipeline.picture_shards.SHARD_BYTES", 20_000)
    captions = open_clip.get_tokenizer("tiny")([*WITH, *WITHOUT])
    shown = torch.stack([normalised(encoder, picture(n)) for n in range(30)])
    with torch.no_grad():
        images, texts = encoder.model.encode_image(shown, True), encoder.model.encode_text(captions, True)
        expected = (encoder.model.logit_scale.exp() * images @ texts.T).softmax(-1)[:, : len(WITH)].sum(-1)
    scores = TextScore(encoder)(np.stack([encoder.image_tokens(p[None])[0] for p in shown]))
    assert np.abs(scores - expected.numpy()).max() < 1e-2
    most = float(np.median(scores))
    done = embed_images(tmp_path, encoder, pictures(range(30)), 30, "noise", say, max_text_score=most)
    assert (done.read, done.new, len(done.skipped)) == (30, 15, 15)
    bank = open_space(tmp_path).bank("noise")
    assert bank.ids() == [f"{n}.png" for n in range(30) if scores[n] <= most]
    assert bank.skipped() == done.skipped
    worst = int(scores.argmax())
    assert done.skipped[f"{worst}.png"] == f"its text score is {scores[worst]:.3f}, above {most:g}"
    order = [*np.argsort(-scores, kind="stable")[:8].tolist(), int(scores.argmin())]
    done = embed_images(tmp_path, encoder, pictures(order), 9, "last", say, max_text_score=float(scores.min()))
    assert (done.new, open_space(tmp_path).bank("last").ids()) == (1, [f"{order[-1]}.png"])
    with pytest.raises(
        DptrError, match=r"none of 3 pictures was kept \(0.png: its text score is .*: nothing was written"
    ):
        embed_images(tmp_path, encoder, pictures(range(3)), 3, "none", say, max_text_score=0)


def normalised(encoder, data):
    config = encoder.preprocess_config
    mean, std = (torch.tensor(v)[:, None, None] for v in (config.mean, config.std))
    return (encoder.preprocess(decode(data)).float() / 255 - mean) / std


def test_an_encoder_of_words_cannot_score():
    with pytest.raises(WrongUse, match="wordclip2 knows words and no captions"):
        TextScore(Encoder("wordclip2", "untrained:0", precision="fp32"))


def test_near_duplicates_are_found(tmp_path, encoder, say):
    """Of photographs that are otherwise far apart: class tokens of length 1 in directions of their own."""
    bank = embed_images_space(tmp_path, encoder, say).bank("made")
    features = np.zeros((40, 2, 64), np.float16)
    features[np.arange(40), 0, np.arange(40)] = 1
    features[7], features[30, 0, 30:32] = features[3], (1, 0.1)  # cosines 1 and 0.995
    features[31, 0] = features[30, 0] * 2
    features[30, 0, 31] = 0
    keys = np.array([f"{n:016}" for n in range(40)], "S16")
    bank.add([f"{n}.png" for n in range(40)], keys, features, "")
    bank.write_index()
    looked_at, alike = bank.near_duplicates()
    assert looked_at == 40
    assert {frozenset(pair) for pair in alike} == {frozenset({"3.png", "7.png"}), frozenset({"30.png", "31.png"})}
    assert len(alike) == 4


def embed_images_space(folder, encoder, say):
    embed_images(folder, encoder, pictures([0]), 1, "one", say)
    assert open_space(folder).bank("one").near_duplicates() == (1, [])
    return open_space(folder)


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
    with pytest.raises(WrongUse, match="tiny-attends has an image tower without a grid of features"):
        embed_images(tmp_path, Encoder("tiny-attends", "untrained:0"), pictures([1]), 1, "noise", say)
    assert list(tmp_path.iterdir()) == []
