"""Chunks of drawn pictures, made by processes."""

import time

import numpy as np
import pytest
import torch

import wordclip.drawing
from cache.errors import DptrError
from pipeline.tokenizer import tokenizer_of
from sources.drawn.fonts import PILLOWS, Font
from sources.drawn.photographs import photographs
from sources.drawn.words import WordSampler
from wordclip.drawing import Artist
from wordclip.pool import Pool


def test_chunks_do_not_depend_on_the_processes(material, tmp_path, monkeypatch):
    sampler = WordSampler([[("hotel", 1.0), ("coffee", 1.0)]], PILLOWS.characters)
    grounds = photographs([str(material / "photos")])
    assert [g.shape for g in grounds] == [(96, 96, 3)] * 3
    monkeypatch.setattr(wordclip.drawing, "CHUNK", 50)
    tokens = tokenizer_of("wordclip2")
    alone, two = (Artist(sampler, tokens, [PILLOWS], grounds, 7, tmp_path / name) for name in "ab")
    assert alone.read(0) is None
    for number in range(3):
        alone.draw(number)
    with two.at_work(3, 2):
        while any(two.read(number) is None for number in range(3)):
            time.sleep(0.05)
    for number in range(3):
        one, other = alone.read(number), two.read(number)
        assert one.pictures.shape == (50, 32, 128, 3)
        for name, values in vars(one).items():
            assert np.array_equal(values, getattr(other, name), equal_nan=name == "centres")
        assert ((one.letters > 0).sum(1) == one.lengths).all()
        assert (np.isfinite(one.centres).sum(1) == one.lengths).all()
        names = {number: c for c, number in tokens.number.items()}
        assert names[one.letters[0, 0]] in PILLOWS.characters


def test_drawing_that_fails_is_an_error_and_not_a_wait(tmp_path):
    """No font draws the only word: every process ends before its first chunk."""
    sampler = WordSampler([[("hotel", 1.0)]], frozenset("hotel"))
    artist = Artist(sampler, tokenizer_of("wordclip2"), [Font("", frozenset("x"))], [], 7, tmp_path)
    with (
        artist.at_work(1, 1),
        pytest.raises(DptrError, match="no picture could be drawn into"),
        Pool(1000, torch.device("cpu")).follow(artist, 1),
    ):
        pass
