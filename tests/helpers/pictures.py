"""Encoded pictures: noise, drawn words, and sets of those with their labels."""

import io
from functools import cache

import numpy as np

from sources.labelled import Labelled

NUMBERS = [str(n) for n in range(10, 100)]


def picture(seed: int, size: tuple[int, int] = (48, 40), kind: str = "PNG") -> bytes:
    """An encoded picture of noise."""
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@cache  # reading the font takes a millisecond, and a training set is drawn anew in each epoch
def drawn(text: str, size: tuple[int, int] = (24, 64)) -> bytes:
    """An encoded picture of a word in Pillow's own font, black on white."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (size[1], size[0]), "white")
    ImageDraw.Draw(image).text((4, 1), text, "black", font=ImageFont.load_default(20))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def drawn_set(labels, name="drawn", damaged=()):
    """Pictures of these words with their labels; some of them are no pictures."""
    return Labelled(name, list(labels), lambda n: b"no picture" if n in damaged else drawn(labels[n]))
