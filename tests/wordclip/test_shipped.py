"""The encoders that come with dptr: they are those that the model card describes, and know words they never saw."""

import hashlib
import random
import re
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from pipeline.encoder import Encoder
from pipeline.towers.prefix_tree import PrefixTree
from pipeline.weights import weights_digest
from sources.drawn.fonts import PILLOWS
from sources.drawn.render import render
from sources.pictures import decode
from sources.signs import photographs, signs
from wordclip.show import nearest, sheet

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "pipeline" / "shipped"
CARD = (ROOT / "wordclip" / "README.md").read_text()
MEASURED = 0.987  # share of 1,000 drawn names found, each among 100, of which 100 are drawn here: see the card
MARGIN = 0.03


def recorded(name: str, model: str) -> str:
    """A value in the card's table of identities."""
    (values,) = re.findall(rf"^\| {name} \| `([^`]+)` \| `([^`]+)` \|$", CARD, re.M)
    return values[("wordclip2", "wordclip").index(model)]


@pytest.fixture(scope="module")
def shipped():
    return Encoder("wordclip2", "shipped", precision="fp32", device="cpu")


def shop_names(count, rng):
    """Those that are in no list of words."""
    return rng.sample(sorted(word for word in signs() if len(word) > 7 and word.isalpha()), count)


def drawn(count):
    """Shop names, drawn in a font that was not trained on."""
    rng = random.Random(0)
    words = shop_names(count, rng)
    grounds = [np.asarray(decode(data)) for _, data in photographs()]
    return words, [render(word, [PILLOWS], grounds, rng).picture for word in words]


def padded(ids):
    return torch.tensor([[*i, *[0] * (77 - len(i))] for i in ids])


@pytest.mark.parametrize("model", ["wordclip2", "wordclip"])
def test_the_file_and_the_fingerprint_are_those_on_the_card(model):
    weights = FOLDER / f"{model}.safetensors"
    assert weights.stat().st_size <= 40_000_000
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == recorded("sha256 of the file", model)
    for pretrained in ("shipped", str(weights)):
        fingerprint = Encoder(model, pretrained, precision="fp32", device="cpu").fingerprint
        assert fingerprint.digest == recorded("fingerprint, fp32", model)
        assert fingerprint.layout == recorded("layout", model)
        assert fingerprint.untrained_seed is None


def test_open_clip_loads_it_as_any_other(shipped):
    model = open_clip.create_model("wordclip2", pretrained=str(FOLDER / "wordclip2.safetensors")).eval()
    assert weights_digest(model) == shipped.fingerprint.weights
    tokens = padded([shipped.prompt.ids("Hotel")])
    with torch.no_grad():
        expected = model.encode_text(tokens)[0].numpy()
        pictures = torch.randn(2, 3, 32, 128)
        pooled = model.encode_image(pictures).numpy()
    last = shipped.text_states([shipped.prompt.ids("Hotel")])[-1].astype(np.float32)
    assert np.abs(last - expected).max() < 1e-2 * np.abs(expected).max()
    tokens = shipped.image_tokens(pictures)
    assert tokens.shape == (2, 33, 256)
    assert np.abs(tokens[:, 0] - pooled).max() < 1e-3 * np.abs(pooled).max()


def test_states_are_those_of_open_clips_full_forward_pass(shipped):
    """On trained weights, in fp32 and before rounding to float16."""
    words = shop_names(40, random.Random(0))
    tokens = padded([shipped.prompt.ids(word) for word in words])
    seen = []
    handle = shipped.tower.ln_final.register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        shipped.model.encode_text(tokens)
    handle.remove()
    (batch,) = PrefixTree([shipped.prompt.ids(word) for word in words], len(shipped.prompt.prefix)).batches(1 << 20)
    with torch.no_grad():
        rows = shipped.text.replicas.first(*(torch.from_numpy(a) for a in batch[:3])).flatten(0, 1)[batch.source]
    ends = [len(shipped.prompt.ids(word)) - 1 for word in words]
    wanted = torch.cat([seen[0][n, len(shipped.prompt.prefix) : end + 1] for n, end in enumerate(ends)])
    assert (rows[np.argsort(batch.target)] - wanted).abs().max() < 1e-4


def test_bf16_is_close_to_fp32(shipped):
    """On trained weights, where features have their usual norms."""
    rough = Encoder("wordclip2", "shipped", precision="bf16", device="cpu")
    words, pictures = drawn(4)  # 4 x 33 rows of pictures; some processors are slow at bf16
    ids = [shipped.prompt.ids(word) for word in words]
    tensor = torch.stack([torch.from_numpy(p).permute(2, 0, 1) for p in pictures]) / 128 - 1
    for exact, near in (
        (shipped.text_states(ids), rough.text_states(ids)),
        (shipped.image_tokens(tensor), rough.image_tokens(tensor)),
    ):
        a, b = (x.astype(np.float32).reshape(-1, 256) for x in (exact, near))
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert cosine.min() > 0.999


def test_drawn_words_are_nearer_to_their_own_prompt_than_to_99_others(shipped):
    words, pictures = drawn(100)
    found = nearest(shipped, pictures, words)
    assert sum(a == b for a, b in zip(found, words, strict=True)) / 100 >= MEASURED - MARGIN
    page = sheet(pictures[:20], words[:20], found[:20])
    assert page.size == (8 * 136, 3 * 54)


def test_upper_and_lower_case_are_two_words(shipped):
    """OpenAI's CLIP lower-cases, but a reader of signs must know the difference."""
    rng = random.Random(1)
    words = [case for name in ("hotel", "garden", "bakery", "market") for case in (name, name.upper())]
    pictures = [render(word, [PILLOWS], [np.zeros((96, 96, 3), np.uint8)], rng).picture for word in words]
    found = nearest(shipped, pictures, words)
    assert sum(a == b for a, b in zip(found, words, strict=True)) >= 6
