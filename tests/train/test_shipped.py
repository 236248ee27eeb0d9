"""The reader that comes with dptr is the one on its card, and reads."""

import hashlib
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.image_encoder import stretched
from sources.drawn.fonts import PILLOWS
from sources.drawn.render import render
from sources.pictures import decode
from sources.signs import photographs, signs
from train.run import load_recogniser
from train.shipped import FOLDER, holds_run

READER, CARD = Path("reader"), Path(__file__).parents[2] / "docs" / "reader.md"
MOST = 12_000_000  # bytes of weights

pytestmark = pytest.mark.skipif(not holds_run(FOLDER / READER), reason="the reader's weights are not in train/shipped")


def test_it_is_the_one_on_the_card():
    data = (FOLDER / READER / "model.safetensors").read_bytes()
    assert len(data) <= MOST
    (digest,) = re.findall(r"^\| sha256 of the file \| `([0-9a-f]{64})` \|$", CARD.read_text(), re.M)
    assert hashlib.sha256(data).hexdigest() == digest


def test_it_reads_words_drawn_in_a_font_that_was_not_trained_on():
    rng = random.Random(0)
    words = rng.sample(sorted(word for word in signs() if word.isalpha() and 4 <= len(word) <= 10), 20)
    grounds = [np.asarray(decode(data)) for _, data in photographs()]
    recogniser, _, _ = load_recogniser(FOLDER / READER)
    size = recogniser.config.vision.image_size
    pictures = [Image.fromarray(render(word, [PILLOWS], grounds, rng).picture) for word in words]
    texts, _ = recogniser.read(torch.stack([stretched(picture, size) for picture in pictures]))
    assert sum(a.lower() == b.lower() for a, b in zip(texts, words, strict=True)) >= 14
