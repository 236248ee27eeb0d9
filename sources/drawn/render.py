"""Pictures of words: font, colours, background photographs, perspective, blur, noise. bench/draw.py measures them."""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from sources.drawn.fonts import Font, loaded

HEIGHT, WIDTH = 32, 128
SIZE = (HEIGHT, WIDTH)
Picture = NDArray[np.uint8]  # (H, W, 3)
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Drawn:
    """A picture of a word, and where its letters are."""

    picture: Picture  # of the size asked for
    centres: list[float]  # of each letter, from 0 at the left edge to 1; slant and perspective are not counted


def render(
    word: str,
    fonts: Sequence[Font],
    photographs: Sequence[Picture],
    rng: random.Random,
    size: tuple[int, int] = SIZE,
) -> Drawn:
    """A picture of `word`, stretched to `size` (rows, columns) like crops of any shape.

    `photographs` (H, W, 3), at least 48 x 96, go behind about half of the words, if there are any. ValueError if no
    font draws the word. Letters are drawn 40 points high, so pictures of more than 64 rows are soft.
    """
    scale = size[0] / HEIGHT
    font = _font(word, fonts, rng)
    letters, centres = _letters(word, font, rng)
    if rng.random() < 0.12:
        letters = _curved(letters, rng)
    mask = _warped(letters, rng, size)
    ground = _ground(photographs, rng, size)
    ink = _ink(ground, photographs, rng)
    kind = rng.random()
    if kind < 0.12:  # a shadow
        down, right = rng.randint(-2, 2), rng.choice((-3, -2, 2, 3))
        shadow = np.roll(mask, (round(down * scale), round(right * scale)), (0, 1))
        ground = _over(ground, np.float32(rng.randint(0, 255)), shadow * rng.uniform(0.4, 1))
    elif kind < 0.24:  # an outline
        wide = Image.fromarray((mask * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(3))
        ground = _over(ground, _contrasting(float(ink.mean()), rng), np.asarray(wide, np.float32) / 255)
    return Drawn(_photographed(_over(ground, ink, mask * rng.uniform(0.75, 1)), rng), centres)


def _font(word: str, fonts: Sequence[Font], rng: random.Random) -> Font:
    for _ in range(50):
        font = rng.choice(fonts)
        if font.draws(word):
            return font
    able = [font for font in fonts if font.draws(word)]
    if not able:
        raise ValueError(f"no font draws {word!r}")
    return rng.choice(able)


def _letters(word: str, font: Font, rng: random.Random) -> tuple[Image.Image, list[float]]:
    """The word in white on black, with a margin that sometimes cuts into it; and its letters' centres."""
    face = loaded(font.path)
    stroke = rng.choice((1, 1, 2)) if rng.random() < 0.15 else 0
    tracking = rng.randint(-2, 14) if rng.random() < 0.2 else 0
    left, top, right, bottom = face.getbbox(word, stroke_width=stroke)
    height = max(1, int(bottom - top))
    picture = Image.new("L", (int(right - left) + tracking * (len(word) - 1) + height, 2 * height), 0)
    draw = ImageDraw.Draw(picture)
    x, y = height / 2 - left, height / 2 - top
    edges = [x]
    for letter in word:
        edges.append(edges[-1] + face.getlength(letter) + tracking)
    if tracking:
        for letter, at in zip(word, edges, strict=False):
            draw.text((at, y), letter, 255, font=face, stroke_width=stroke)
    else:
        draw.text((x, y), word, 255, font=face, stroke_width=stroke)
    box = picture.getbbox() or (0, 0, *picture.size)
    margins = [rng.uniform(-0.04, 0.22) * height if rng.random() < 0.8 else 0.0 for _ in range(4)]
    cut = (int(box[0] - margins[0]), int(box[1] - margins[1]), int(box[2] + margins[2]), int(box[3] + margins[3]))
    middles = ((a + b - tracking) / 2 for a, b in pairwise(edges))
    return picture.crop(cut), [(middle - cut[0]) / max(1, cut[2] - cut[0]) for middle in middles]


def _curved(letters: Image.Image, rng: random.Random) -> Image.Image:
    """Bent along half a sine."""
    pixels = np.asarray(letters)
    height, width = pixels.shape
    bend = rng.uniform(-0.6, 0.6) * height
    down = bend * np.sin(np.linspace(0, np.pi, width)) - min(0.0, bend)
    room = int(abs(bend)) + 1
    rows = np.arange(height + room)[:, None] - down.astype(int)[None]
    inside = (rows >= 0) & (rows < height)
    return Image.fromarray(np.where(inside, pixels[rows.clip(0, height - 1), np.arange(width)], 0).astype(np.uint8))


def _warped(letters: Image.Image, rng: random.Random, size: tuple[int, int]) -> Floats:
    """`size` numbers from 0 to 1: turned, slanted and seen at an angle."""
    width, height = letters.size
    turn = rng.gauss(0, 0.10) if rng.random() < 0.5 else 0.0  # as a share of the height
    slant = rng.gauss(0, 0.2) if rng.random() < 0.3 else 0.0
    near = [rng.gauss(0, 0.05) for _ in range(4)] if rng.random() < 0.5 else [0.0] * 4
    dx = slant * height / 2
    dy = turn * height
    corners = (
        (-dx, dy + near[0] * height),
        (dx, height + dy - near[1] * height),
        (width + dx, height - dy + near[2] * height),
        (width - dx, -dy - near[3] * height),
    )
    flat = [value for corner in corners for value in corner]
    twice = (2 * size[1], 2 * size[0])
    warped = letters.transform(twice, Image.Transform.QUAD, flat, Image.Resampling.BILINEAR)
    return np.asarray(warped.reduce(2), np.float32) / 255


def _ground(photographs: Sequence[Picture], rng: random.Random, size: tuple[int, int]) -> Floats:
    """(*size, 3): a colour, a gradient, or a piece of a photograph."""
    colour = np.array([rng.randint(0, 255) for _ in range(3)], np.float32)
    if rng.random() < 0.3:
        colour[:] = rng.randint(0, 255)
    ground = np.broadcast_to(colour, (*size, 3))
    if rng.random() < 0.3:
        slope = np.linspace(0, rng.uniform(-80, 80), size[1], dtype=np.float32)
        ground = ground + slope[None, :, None]
    if rng.random() < 0.55 and photographs:
        ground = ground + rng.uniform(0.1, 1) * (_piece(photographs, rng, size) - ground)
    return ground


def _piece(photographs: Sequence[Picture], rng: random.Random, size: tuple[int, int]) -> Floats:
    photograph = rng.choice(photographs)
    height = rng.randint(16, min(64, photograph.shape[0]))
    width = min(photograph.shape[1], height * rng.randint(1, 4))
    y, x = rng.randint(0, photograph.shape[0] - height), rng.randint(0, photograph.shape[1] - width)
    piece = Image.fromarray(photograph[y : y + height, x : x + width])
    return np.asarray(piece.resize(size[::-1], Image.Resampling.BILINEAR), np.float32)


def _ink(ground: Floats, photographs: Sequence[Picture], rng: random.Random) -> Floats:
    """A colour that stands out from the ground, at times textured."""
    colour = _contrasting(float(ground.mean()), rng)
    if rng.random() < 0.1 and photographs:
        texture = _piece(photographs, rng, ground.shape[:2])
        return colour + 0.4 * (texture - texture.mean())
    return colour


def _contrasting(level: float, rng: random.Random) -> Floats:
    """An RGB colour whose mean is well above or below `level`."""
    least = rng.choice((35, 60, 90, 120))
    for _ in range(20):
        grey = rng.randint(0, 255)
        colour = [grey] * 3 if rng.random() < 0.4 else [rng.randint(0, 255) for _ in range(3)]
        if abs(sum(colour) / 3 - level) >= least:
            return np.array(colour, np.float32)
    return np.full(3, 0 if level > 127 else 255, np.float32)


def _over(ground: Floats, ink: Floats | np.float32, mask: Floats) -> Floats:
    return ground + mask[:, :, None] * (ink - ground)


def _photographed(picture: Floats, rng: random.Random) -> Picture:
    """What a camera does: few pixels, blur, noise, compression."""
    scale, size = len(picture) / HEIGHT, picture.shape[1::-1]
    if rng.random() < 0.4:
        picture = picture + np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(2, 20), picture.shape)
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    if rng.random() < 0.35:
        height = round(rng.randint(9, 28) * scale)
        image = image.resize((height * rng.randint(2, 4), height), Image.Resampling.BILINEAR)
        image = image.resize(size, Image.Resampling.BICUBIC)
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3) * scale))
    if rng.random() < 0.25:
        packed = io.BytesIO()
        image.save(packed, "JPEG", quality=rng.randint(15, 75))
        image = Image.open(packed)
    return np.array(image)  # a copy that can be written to
