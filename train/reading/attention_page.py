"""Draws where the FMU and the decoder looked: `dptr read RUN IMAGE... --attention PNG`."""

import io
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor
from torch.nn import functional as F

from cache.errors import DptrError, WrongUse
from cache.files import write_whole
from models.device import choose_device
from sources.pictures import decode
from train.reading.attention import _drawable, _looked
from train.reading.read import pictures
from train.run import load_recogniser

MOST = 100  # pictures in one file, at most
WIDTH = 960  # approximate width of a row of tiles, in pixels
PICTURE, TILE = (144, 640), (72, 228)  # maximum height and width in pixels of the picture read and of one tile
GAP, SMALL, LARGE = 12, 18, 26  # pixels between tiles, and the two font sizes
PAPER, INK, FAINT = "white", "#1a1a1a", "#6b6b6b"
# Nine evenly spaced colours of matplotlib's inferno (CC0), whose brightness rises evenly
INFERNO = np.array(
    [
        (0, 0, 4),
        (31, 12, 72),
        (85, 15, 109),
        (136, 34, 106),
        (186, 54, 85),
        (227, 89, 51),
        (249, 140, 10),
        (249, 201, 50),
        (252, 255, 164),
    ]
)


def look(run: Path, images: Sequence[str], path: Path, device: str = "auto") -> int:
    """Draw where a run looks in pictures into the PNG `path`; `images` as for `read.pictures`. Returns their number.

    Files that are not pictures are left out. Raises what `read.read` does, WrongUse also for more than 100 pictures or
    a decoder other than parseq, and DptrError if there is nothing to draw or the file cannot be written.
    """
    target = choose_device(device)
    named = pictures(images)
    recogniser = load_recogniser(run)[0].to(target)
    vision = recogniser.config.vision
    _drawable(recogniser)  # before any picture is decoded
    shown: list[Image.Image] = []
    made: list[Tensor] = []
    for n, (_, data) in enumerate(named):
        if n == MOST:
            raise WrongUse(f"{path} has room for {MOST} pictures, but more were given: name fewer.")
        with suppress(ValueError):
            picture = vision.upright(decode(data))
            made.append(vision.pixels(picture))
            shown.append(_fitted(picture, PICTURE))  # large photographs are kept only at the size drawn
    if not shown:
        raise DptrError(f"there is nothing to draw in {path}: none of the files is a picture.")
    pixels = torch.stack(made).to(target)
    texts, sure, maps = zip(*_looked(recogniser, pixels), strict=True)
    draw_attention(shown, texts, sure, maps, path)
    return len(shown)


def draw_attention(
    shown: Sequence[Image.Image],
    texts: Sequence[str],
    confidences: Sequence[float] | None,
    maps: Sequence[Tensor],
    path: Path,
) -> None:
    """Write a PNG with a block per picture (RGB): the text read, its confidence, the picture, and a tile per character.

    A tile shows the picture in grey under a heat map of the character's attention, from the tile's own minimum to its
    maximum, with the entropy of the attention below; `maps` are as `attention_maps` gives them. Characters missing from
    the font are shown by their code points. Needs at least one picture. Raises DptrError if the file cannot be written.
    """
    sure: Sequence[float | None] = confidences or [None] * len(shown)
    blocks = [_block(*parts) for parts in zip(shown, texts, sure, maps, strict=True)]
    width = max(block.width for block in blocks) + 2 * GAP
    page = Image.new("RGB", (width, sum(block.height + 2 * GAP for block in blocks)), PAPER)
    top = 0
    for block in blocks:
        if top:
            ImageDraw.Draw(page).line((GAP, top, width - GAP, top), FAINT)
        page.paste(block, (GAP, top + GAP))
        top += block.height + 2 * GAP
    file = io.BytesIO()
    page.save(file, "PNG")
    write_whole(path, file.getbuffer())


def heat_maps(picture: Image.Image, maps: Tensor) -> list[Image.Image]:
    """A tile for each of the maps (characters, rows, columns): the picture (RGB) in grey, under their heat."""
    grey = _grey_tile(picture)
    return [_heated(grey, one) for one in maps]


def _grey_tile(picture: Image.Image) -> Image.Image:
    return ImageOps.autocontrast(_fitted(picture, TILE).convert("L"))


def _block(picture: Image.Image, text: str, sure: float | None, maps: Tensor) -> Image.Image:
    large, small = ImageFont.load_default(LARGE), ImageFont.load_default(SMALL)
    shown, tile = _fitted(picture, PICTURE), _grey_tile(picture)
    title = _legible(text, large) if text else "(nothing read)"
    note = "" if sure is None else f"confidence {sure:.0%}"
    labels = [_legible(character, small) for character in text]
    across = GAP + max([tile.width, *(math.ceil(small.getlength(label)) for label in labels)])
    down = tile.height + 2 * SMALL + 2 * GAP
    columns = max(1, min(WIDTH // across, len(labels)))
    head = 2 * LARGE + shown.height
    right = LARGE + math.ceil(large.getlength(title) + small.getlength(note))
    width = max(right, shown.width, columns * across - GAP)
    block = Image.new("RGB", (width, head + GAP + math.ceil(len(labels) / columns) * down), PAPER)
    draw = ImageDraw.Draw(block)
    draw.text((0, LARGE), title, INK, large, "ls")
    draw.text((right, LARGE), note, FAINT, small, "rs")
    block.paste(shown, (0, 2 * LARGE - GAP))
    for n, (label, one) in enumerate(zip(labels, maps, strict=True)):
        x, y = n % columns * across, head + GAP + n // columns * down
        block.paste(_heated(tile, one), (x + (across - GAP - tile.width) // 2, y))
        middle, below = x + (across - GAP) / 2, y + tile.height + SMALL + 2
        draw.text((middle, below), label, INK, small, "ms")
        draw.text((middle, below + SMALL), f"{entropy(one):.1f} bits", FAINT, small, "ms")
    return block


def entropy(one: Tensor) -> float:
    """How spread out a map is, in bits: 0 for a single place, log2(n) if it is equal at all n places."""
    return float(torch.special.entr(one.double()).sum() / math.log(2))


def _heated(grey: Image.Image, one: Tensor) -> Image.Image:
    """A grey picture under the heat map of `one` (rows, columns): the more heat, the less grey.

    Its coolest place is cold and its hottest is hot, however little they differ: what an unsure reader prefers is seen,
    and the entropy says how much.
    """
    size = (grey.height, grey.width)
    smooth = F.interpolate(one[None, None], size, mode="bicubic", antialias=True)[0, 0].clamp_min(0).numpy()
    low, high = smooth.min(), smooth.max()
    heat = ((smooth - low) / max(high - low, 1e-4 * high))[..., None]  # (H, W, 1), 0 to 1; rounding errors stay cold
    steps = np.linspace(0, 1, len(INFERNO))
    colours = np.concatenate([np.interp(heat, steps, channel) for channel in INFERNO.T], -1)
    share = 0.3 + 0.45 * heat
    dimmed = 30 + 0.6 * np.asarray(grey)[..., None]  # so that heat glows on white too
    mixed = (1 - share) * dimmed + share * colours
    return Image.fromarray(mixed.round().astype(np.uint8))


def _fitted(picture: Image.Image, most: tuple[int, int]) -> Image.Image:
    """The picture scaled to fit into (height, width), with its aspect ratio kept."""
    scale = min(most[0] / picture.height, most[1] / picture.width)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.BICUBIC)


def _legible(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, with code points such as U+1EDF for characters missing from the font."""
    lacking = bytes(font.getmask("\uffff"))
    parts = (c if c.isascii() or bytes(font.getmask(c)) != lacking else f" U+{ord(c):04X} " for c in text)
    return " ".join("".join(parts).split())
