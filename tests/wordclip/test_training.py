"""The pool of pictures and the training itself, to the whole command."""

import json
import runpy
import sys

import numpy as np
import pytest
import torch
from open_clip.transform import image_transform_v2
from PIL import Image

from pipeline.encoder import Encoder
from pipeline.shipped.word_vit import QUERIES
from tests.helpers.forks import Forked
from wordclip.crops import Crops, read_crops
from wordclip.drawing import Chunk
from wordclip.pool import Pool, augmented, batch_of, plain
from wordclip.train import Recipe, Training


def test_pool_gives_every_picture_with_what_it_says(tokens):
    words = [f"word{n}" for n in range(60)]
    pictures = np.arange(60, dtype=np.uint8)[:, None, None, None].repeat(32, 1).repeat(128, 2).repeat(3, 3)
    pool = Pool(100, torch.device("cpu"))
    for part in (slice(0, 30), slice(30, 60)):
        pool.add(Chunk.of(pictures[part], words[part], tokens, [[0.5] * len(word) for word in words[part]]))
    assert pool.filled == 60
    real = Pool.of(Crops(pictures[:9] + 100, ["crop", "", "x" * 26, "漢", *["crops"] * 5]), tokens, torch.device("cpu"))
    assert real.filled == 6
    torch.manual_seed(0)
    seen = []
    names = {number: c for c, number in tokens.number.items()}
    for _ in range(40):
        some = batch_of(pool, real, 20, 0.25)
        assert some.real == 5
        assert (some.pictures[-5:] >= 100).all()
        assert some.centres[-5:].isnan().all()
        for picture, letters, length in zip(some.pictures[:-5], some.letters, some.lengths, strict=False):
            word = "".join(names[int(n)] for n in letters[:length])
            assert word == words[int(picture[0, 0, 0])]
            seen.append(word)
    counts = [seen.count(word) for word in words]
    assert min(counts) > 1
    assert max(counts) < 30
    none = Pool.of(Crops(pictures[:0], []), tokens, torch.device("cpu"))
    assert batch_of(pool, none, 20, 0.25).real == 0


def test_plain_pictures_are_what_the_encoder_sees(word_encoder):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 128, 3), np.uint8)
    config = word_encoder.preprocess_config
    theirs = image_transform_v2(config, is_train=False)
    expected = torch.stack([theirs(Image.fromarray(p)) for p in pictures])
    assert (plain(torch.from_numpy(pictures), config.mean, config.std) - expected).abs().max() < 1e-5
    assert augmented(torch.from_numpy(pictures), 1, config.mean, config.std).shape == expected.shape


def test_crops_lose_their_spaces_and_the_broken_ones(material):
    known, held = read_crops([material / "crops"])
    assert len(known) + len(held) == 12
    assert "hotel" in {*known.labels, *held.labels}
    assert known.pictures.shape[1:] == (32, 128, 3)
    assert len(Crops.joined([known, held])) == 12


def test_a_step_trains_the_stem_and_then_everything(word_encoder, tokens, tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (12, 32, 128, 3), np.uint8)
    pool = Pool(12, torch.device("cpu"))
    pool.add(Chunk.of(pictures, [f"word{n}" for n in range(12)], tokens, [[0.5] * len(f"word{n}") for n in range(12)]))
    none = Pool.of(Crops(pictures[:0], []), tokens, torch.device("cpu"))
    encoder = Encoder("wordclip2", "untrained:3", precision="fp32", device="cpu")
    training = Training(encoder, tokens, Recipe(1.0, 4, device="cpu"), tmp_path)
    for minutes, moved in ((0.0, {"visual"}), (0.5, {"visual", "transformer", "token_embedding", "text_projection"})):
        training.minutes = minutes
        before = {name: value.clone() for name, value in training.model.named_parameters()}
        losses = training._step(batch_of(pool, none, 8, 0.2))
        assert all(bool(loss.isfinite()) for loss in losses.values())
        after = dict(training.model.named_parameters())
        changed = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
        assert changed >= moved
        assert ("transformer" in changed) == ("transformer" in moved)
    assert (training.read, training.paired) == (8, 8)
    training.write()
    assert (
        Encoder("wordclip2", str(tmp_path / "wordclip2.safetensors"), device="cpu").fingerprint.untrained_seed is None
    )


def test_one_command_makes_an_encoder_and_goes_on_where_it_was(material, tmp_path):
    options = ["--words", material / "words.txt", "--fonts", material / "fonts", "--photos", material / "photos"]
    options += ["--crops", material / "crops", "--watch", material / "crops", "--pictures", 1000, "--device", "cpu"]
    options += ["--batch", 8, "--out", tmp_path]
    first = Forked.module(tmp_path / "first", "wordclip", *options, "--minutes", 0.03).wait()
    assert first.returncode == 0, first.stderr
    figures = json.loads((tmp_path / "measured.json").read_text())
    assert figures["crops"]["pictures"] == 12
    assert 0 <= figures["crops"]["word"] <= figures["crops"]["any_case"] <= 1
    assert figures["training"]["paired"] >= 8
    assert figures["training"]["drawn"] == 1000
    drawn = (tmp_path / "pictures" / "000000.npz").stat().st_mtime_ns
    encoder = Encoder("wordclip2", str(tmp_path / "wordclip2.safetensors"), device="cpu")
    assert encoder.fingerprint.untrained_seed is None
    assert encoder.image_tokens(torch.zeros(1, 3, 32, 128)).shape == (1, 1 + QUERIES, 256)

    minutes = figures["training"]["minutes"]  # more than asked for, where a step is slow
    second = Forked.module(tmp_path / "second", "wordclip", *options, "--minutes", minutes + 0.03).wait()
    assert f"going on after {minutes:.1f} minutes" in second.stdout
    assert (tmp_path / "pictures" / "000000.npz").stat().st_mtime_ns == drawn
    again = json.loads((tmp_path / "measured.json").read_text())
    assert again["training"]["paired"] > figures["training"]["paired"]


def test_wrong_use_is_one_sentence(material, tmp_path, monkeypatch, capsys):
    options = ["--words", material / "words.txt", "--photos", material / "photos", "--out", tmp_path]
    monkeypatch.setattr(sys, "argv", ["wordclip", *map(str, options), "--fonts", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as wrong:
        runpy.run_module("wordclip", run_name="__main__")
    assert wrong.value.code == 2
    said = capsys.readouterr().err
    assert "there is no legible font under" in said
    assert "Traceback" not in said
