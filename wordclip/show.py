"""What an encoder makes of pictures of words: which of many words it finds nearest, and a sheet to look at."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.encoder import Encoder
from sources.drawn.fonts import PILLOWS, loaded
from sources.drawn.render import HEIGHT, WIDTH, Picture


def nearest(encoder: Encoder, pictures: Sequence[Picture], words: Sequence[str]) -> list[str]:
    """For each picture (H, W, 3) uint8 the word whose prompt is nearest by cosine. Not for the full layout."""
    images = encoder.image_tokens(torch.stack([encoder.preprocess(Image.fromarray(p)) for p in pictures]))[:, 0]
    ids = [encoder.prompt.ids(word) for word in words]
    ends = np.cumsum([encoder.rows(i) for i in ids]) - 1
    texts = encoder.text_states(ids)[ends].astype(np.float32)
    if encoder.layout != "shared":
        texts = texts @ encoder.text_projection.numpy()
    likeness = _unit(images.astype(np.float32)) @ _unit(texts).T
    return [words[n] for n in likeness.argmax(1)]


def sheet(pictures: Sequence[Picture], truths: Sequence[str], found: Sequence[str], columns: int = 8) -> Image.Image:
    """The pictures in rows, under each what was found: green if that is the truth, else red."""
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * (WIDTH + 8), rows * (HEIGHT + 22)), "white")
    draw, face = ImageDraw.Draw(page), loaded(PILLOWS.path).font_variant(size=13)
    for n, (picture, truth, text) in enumerate(zip(pictures, truths, found, strict=True)):
        x, y = n % columns * (WIDTH + 8) + 4, n // columns * (HEIGHT + 22) + 2
        page.paste(Image.fromarray(picture), (x, y))
        draw.text((x, y + HEIGHT + 1), text, "green" if text == truth else "red", font=face)
    return page


def png(page: Image.Image) -> bytes:
    """The page as the bytes of a PNG."""
    packed = io.BytesIO()
    page.save(packed, "PNG")
    return packed.getvalue()


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return features / np.linalg.norm(features, axis=1, keepdims=True)
