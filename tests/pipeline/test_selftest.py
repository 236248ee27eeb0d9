"""The self-test notices another encoder than the one that made the space, and the same one computing differently."""

import shutil

import pytest

import pipeline.selftest
from cache.errors import DptrError
from cache.space import open_space
from pipeline.encoder import Encoder
from pipeline.selftest import check, constants


def test_same_encoder_agrees(cache):
    found = check(open_space(cache))
    assert found["text"] > 0.99999
    assert found["image"] > 0.99999


def test_other_weights_are_refused_with_both_values(cache):
    with pytest.raises(DptrError, match=r"made by another encoder .* untrained_seed: 1 / 2"):
        check(open_space(cache), pretrained="untrained:2")


def test_encoder_that_computes_otherwise_is_refused(cache, monkeypatch):
    """As if a new version of a library resized pictures or computed attention differently."""
    states = Encoder.text_states
    monkeypatch.setattr(Encoder, "text_states", lambda self, ids: states(self, [i[:-2] + i[-1:] + [0] for i in ids]))
    with pytest.raises(DptrError, match="smallest cosine between its text features"):
        check(open_space(cache))
    monkeypatch.undo()
    tokens = pipeline.selftest._tokens
    monkeypatch.setattr(pipeline.selftest, "_tokens", lambda encoder, picture: tokens(encoder, picture[:, ::-1].copy()))
    with pytest.raises(DptrError, match="smallest cosine between its image features"):
        check(open_space(cache))


def test_tower_without_tokens_leaves_the_picture_out(tiny_models):
    found = constants(Encoder("tiny-attends", "untrained:0", precision="fp32"))
    assert "selftest_states" in found
    assert "selftest_tokens" not in found


def test_damaged_self_test_is_named(cache, tmp_path):
    shutil.copytree(cache, tmp_path / "c")
    (path,) = (tmp_path / "c").glob("*/constants/00000.h5")
    data = bytearray(path.read_bytes())
    place = open_space(tmp_path / "c").constant_shards().entries[0].datasets["selftest_states"]
    data[place.offset + 5] ^= 4
    path.write_bytes(data)
    with pytest.raises(DptrError, match="its selftest_states does not match its checksum"):
        check(open_space(tmp_path / "c"))
