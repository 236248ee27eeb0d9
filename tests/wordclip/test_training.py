"""Batches, losses and the training itself, against open_clip's own forward passes and slow references."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.transform import image_transform_v2
from PIL import Image
from torch.nn import functional as F

from pipeline.encoder import Encoder
from wordclip.batches import Batches, augmented, plain
from wordclip.crops import Crops, read_crops
from wordclip.model import SPELLED, Heads, image_features, text_features
from wordclip.words import WordSampler

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def word_encoder():
    return Encoder("wordclip", "untrained:3", precision="fp32", device="cpu")


def made(count):
    """Pictures of noise and numbered words, two of which differ in case only."""
    rng = np.random.default_rng(0)
    words = [f"word{n // 2}" if n % 2 else f"WORD{n // 2}" for n in range(count)]
    return rng.integers(0, 256, (count, 32, 128, 3), np.uint8), words


def test_features_are_open_clips(word_encoder):
    model, prompt = word_encoder.model, word_encoder.prompt
    pictures = torch.randn(3, 3, 32, 128)
    words = ["HOTEL", "hotel", "12:30", "a", "Straßenbahn"]
    ids = [prompt.ids(word) for word in words]
    with torch.no_grad():
        tokens, images = image_features(model, pictures)
        assert (images - model.encode_image(pictures, normalize=True)).abs().max() < 1e-5
        whole = torch.tensor([[*i, *[0] * (77 - len(i))] for i in ids])
        expected = model.encode_text(whole, normalize=True)
        assert (text_features(model, ids) - expected).abs().max() < 1e-5
    assert tokens.shape == (3, 64, 192)
    assert len(set(map(tuple, ids))) == 5  # upper and lower case are two words


def test_batch_holds_no_word_twice_and_follows_from_its_number(word_encoder):
    pictures, words = made(200)
    crops = Crops(*made(60))
    sampler = WordSampler([[("hotel", 1.0)]], word_encoder.prompt.tokens)
    batches = Batches((pictures, words), crops, sampler, word_encoder.prompt, real=0.25, others=0.5, seed=0)
    batch = batches.make(5)
    assert batch.pictures.shape == (64, 32, 128, 3)
    assert batch.real == 16
    assert len({word.casefold() for word in batch.words}) == 64
    assert batch.ids == [word_encoder.prompt.ids(word) for word in batch.words]
    assert len(batch.others) == len(batch.other_ids) == 32
    for picture, word in zip(batch.pictures[-16:], batch.words[-16:], strict=True):
        assert (picture.numpy() == crops.pictures[crops.labels.index(word)]).all()
    again = batches.make(5)
    assert again.words == batch.words
    assert again.others == batch.others
    assert batches.make(6).words != batch.words
    assert [b.words for b, _ in zip(batches.ahead(5), range(2), strict=False)] == [batch.words, batches.make(6).words]


def test_plain_pictures_are_what_the_encoder_sees(word_encoder):
    pictures, _ = made(2)
    config = word_encoder.preprocess_config
    theirs = image_transform_v2(config, is_train=False)
    expected = torch.stack([theirs(Image.fromarray(p)) for p in pictures])
    assert (plain(torch.from_numpy(pictures), config.mean, config.std) - expected).abs().max() < 1e-5
    assert augmented(torch.from_numpy(pictures), 1, config.mean, config.std).shape == expected.shape


def test_losses_equal_slow_ones(word_encoder):
    torch.manual_seed(0)
    heads = Heads("abcdefgh", word_encoder.model)
    words = ["abc", "hh", "a" * 25]
    numbers = heads.numbers(words)
    assert numbers[0] == [1, 2, 3]
    assert heads.numbers(["x"]) == [[8]]
    tokens, features = torch.randn(3, 64, 192), F.normalize(torch.randn(3, 256), dim=-1)

    columns = (tokens[:, :32] + tokens[:, 32:]) / 2  # two rows of 32
    scores = heads.even(columns).log_softmax(-1)
    wanted = [-scores[b, at, word[int(at * len(word) / 32)]] for b, word in enumerate(numbers) for at in range(32)]
    assert torch.isclose(heads.evenly(tokens, numbers), torch.stack(wanted).mean())

    told = heads.letters(F.gelu(heads.places(features * 16).view(3, SPELLED, 64))).log_softmax(-1)
    wanted = [-told[b, n, c] for b, word in enumerate(numbers) for n, c in enumerate([*word, 0][:SPELLED])]
    assert torch.isclose(heads.spelling(features, numbers), torch.stack(wanted).mean())

    one = heads.columns(columns[1]).log_softmax(-1)  # "hh": all ways to read it must have a blank between
    total = torch.full((32, 5), -torch.inf)
    path = [0, 8, 0, 8, 0]
    total[0, :2] = one[0, path[:2]]
    for t in range(1, 32):
        for s in range(5):
            before = [total[t - 1, s]] + ([total[t - 1, s - 1]] if s else [])
            total[t, s] = torch.stack(before).logsumexp(0) + one[t, path[s]]
    expected = -torch.logsumexp(total[-1, -2:], 0) / 2
    assert torch.isclose(heads.ctc(tokens[1:2], numbers[1:2]), expected)


def test_crops_lose_their_spaces_and_the_broken_ones(material):
    known, held = read_crops([material / "crops"])
    assert len(known) + len(held) == 30
    assert "hotel" in {*known.labels, *held.labels}
    assert known.pictures.shape[1:] == (32, 128, 3)
    assert len(Crops.joined([known, held])) == 30


def make(*arguments):
    command = [sys.executable, "-m", "wordclip", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_one_command_makes_an_encoder_and_goes_on_where_it_was(material, tmp_path):
    options = ["--words", material / "words.txt", "--fonts", material / "fonts", "--photos", material / "photos"]
    options += ["--crops", material / "crops", "--watch", material / "crops", "--pictures", 1000, "--device", "cpu"]
    first = make(*options, "--out", tmp_path, "--minutes", 0.06)
    assert first.returncode == 0, first.stderr
    figures = json.loads((tmp_path / "measured.json").read_text())
    assert figures["crops"]["pictures"] == 30
    assert 0 <= figures["crops"]["word"] <= figures["crops"]["any_case"] <= 1
    assert figures["training"]["paired"] >= 64
    drawn = (tmp_path / "pictures.npy").stat().st_mtime_ns
    encoder = Encoder("wordclip", str(tmp_path / "wordclip.safetensors"), device="cpu")
    assert encoder.fingerprint.untrained_seed is None
    assert encoder.image_tokens(torch.zeros(1, 3, 32, 128)).shape == (1, 65, 256)

    minutes = figures["training"]["minutes"]  # more than asked for, where a step is slow
    second = make(*options, "--out", tmp_path, "--minutes", minutes + 0.06)
    assert f"going on after {minutes:.1f} minutes" in second.stdout
    assert (tmp_path / "pictures.npy").stat().st_mtime_ns == drawn
    again = json.loads((tmp_path / "measured.json").read_text())
    assert again["training"]["paired"] > figures["training"]["paired"]


def test_wrong_use_is_one_sentence(material, tmp_path):
    options = ["--words", material / "words.txt", "--photos", material / "photos", "--out", tmp_path]
    wrong = make(*options, "--fonts", tmp_path / "none")
    assert wrong.returncode == 2
    assert "no legible font lies under" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_random_words_of_a_batch_are_really_random(word_encoder):
    """Every picture comes in time, none much more often than another."""
    pictures, words = made(128)
    sampler = WordSampler([[("hotel", 1.0)]], word_encoder.prompt.tokens)
    none = Crops(np.empty((0, 32, 128, 3), np.uint8), [])
    batches = Batches((pictures, words), none, sampler, word_encoder.prompt, real=0.5, others=0.0, seed=0)
    assert batches.make(0).real == 0
    seen = [word for n in range(100) for word in batches.make(n).words]
    counts = [seen.count(word) for word in words]
    assert min(counts) > 20
    assert max(counts) < 80
