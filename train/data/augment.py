"""Augments pictures of words, as if they showed other signs, in other light, through other cameras.

Rotation, perspective, blur, noise, colour and inversion are torchvision v2's own functions. Their parameters are drawn
here, so that they suit the picture's shape: the border is repeated outwards before a rotation, and no part of the word
is cut off.
"""

import math
import random

import numpy as np
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as V

CHANCE = 0.4  # probability of each change at strength 1, independently of the others
LARGEST = (96, 1024)  # rows and columns; larger pictures are shrunk first, as they will be read at a fraction of that


def augmented(picture: Image.Image, strength: float, rng: random.Random) -> Image.Image:
    """The picture changed at random: not at all at strength 0, as much as real crops vary at 1, wildly at 2."""
    if not strength:
        return picture
    shrink = min(LARGEST[0] / picture.height, LARGEST[1] / picture.width)
    if shrink < 1:
        picture = picture.resize((max(1, round(picture.width * shrink)), max(1, round(picture.height * shrink))))
    chance = min(0.9, CHANCE * strength)
    if rng.random() < chance:
        picture = _moved(picture, strength, rng)
    if rng.random() < chance:
        picture = _coloured(picture, strength, rng)
    if rng.random() < 0.1 * strength:
        picture = V.invert(picture)
    if rng.random() < chance / 2:
        sigma = rng.uniform(0.1, 1) * strength * picture.height / 32  # in pixels of the picture at this point
        size = 2 * math.ceil(2 * sigma) + 1
        if size < 2 * min(picture.size):
            picture = V.gaussian_blur(picture, [size, size], [sigma, sigma])
    if rng.random() < chance / 2:
        picture = _noisy(picture, 25 * strength * rng.random(), rng)
    return picture


def _moved(picture: Image.Image, strength: float, rng: random.Random) -> Image.Image:
    """Rotated, and seen from the side: padded with its own border first, cropped to what the word needs at the end."""
    width, height = picture.size
    turn = max(-40.0, min(40.0, rng.gauss(0, 6 * strength)))  # degrees
    lift = abs(math.sin(math.radians(turn))) * width / 2  # rows by which the ends of the word rise and fall
    tilt = [rng.uniform(0, 0.25 * strength) * height * (rng.random() < 0.5) for _ in range(4)]
    across, along = round(lift + max(tilt)) + 1, round(abs(math.sin(math.radians(turn))) * height / 2 + max(tilt)) + 1
    grown = V.pad(picture, [along, across], padding_mode="edge")
    start = [[along, across], [along + width, across], [along + width, across + height], [along, across + height]]
    away = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    moves = zip(start, away, tilt, strict=True)
    end = [[round(x + 0.5 * by * i), round(y + by * j)] for (x, y), (i, j), by in moves]
    bilinear = InterpolationMode.BILINEAR
    if any(tilt):
        grown = V.perspective(grown, start, end, bilinear, fill=_mean(picture))
    grown = V.rotate(grown, turn, bilinear, fill=_mean(picture))
    tight = rng.uniform(-0.04, 0.08) * min(picture.size)  # crops differ in how tightly they are cut
    left, top = max(0, along - round(max(tilt) / 2 + tight)), max(0, across - round(lift + max(tilt) + tight))
    return grown.crop((left, top, grown.width - left, grown.height - top))


def _mean(picture: Image.Image) -> list[float]:
    return [float(v) for v in picture.resize((1, 1), Image.Resampling.BOX).tobytes()]


def _coloured(picture: Image.Image, strength: float, rng: random.Random) -> Image.Image:
    span = min(0.8, 0.4 * strength)
    picture = V.adjust_brightness(picture, rng.uniform(1 - span, 1 + span))
    picture = V.adjust_contrast(picture, rng.uniform(1 - span, 1 + span))
    picture = V.adjust_saturation(picture, rng.uniform(1 - span, 1 + span))
    return V.adjust_hue(picture, rng.uniform(-0.5, 0.5) * min(1.0, 0.4 * strength))


def _noisy(picture: Image.Image, deviation: float, rng: random.Random) -> Image.Image:
    """Gaussian noise; torchvision has it for tensors only."""
    pixels = np.asarray(picture, np.float32)
    noise = np.random.default_rng(rng.getrandbits(64)).standard_normal(pixels.shape, np.float32)
    return Image.fromarray((pixels + deviation * noise).clip(0, 255).astype(np.uint8))
