"""Fonts to render with: those whose letters can be told apart, and the characters each can draw."""

import multiprocessing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits, printable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFont

SIZE = 40  # points; words are scaled to the picture afterwards
LEGIBLE = 0.6  # least share of characters whose nearest shape in the reference fonts is the same character
REFERENCES = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "LiberationSans-Regular.ttf")
_CHECKED = ascii_uppercase + digits
_MISSING = "\U000e0fff"  # no font has a glyph here


@dataclass(frozen=True)
class Font:
    """A font file and what it can draw."""

    path: str
    characters: frozenset[str]

    def draws(self, word: str) -> bool:
        return self.characters.issuperset(word)


USUAL = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts", "/Library/Fonts")
PACKAGED = {"trdg": "fonts", "matplotlib": "mpl-data/fonts/ttf"}  # folders of fonts in Python packages
PILLOWS = Font("", frozenset(printable.strip()))  # Aileron, which comes with Pillow: never trained on


@cache
def loaded(path: str) -> ImageFont.FreeTypeFont:
    """The font file at SIZE; Pillow's own font if the path is empty."""
    if not path:
        own = ImageFont.load_default(SIZE)
        assert isinstance(own, ImageFont.FreeTypeFont)
        return own
    return ImageFont.truetype(path, SIZE, layout_engine=ImageFont.Layout.BASIC)


def usual_folders() -> list[str]:
    """Folders with fonts that are there: the system's, the user's, and those of the packages trdg and matplotlib."""
    packaged = [(find_spec(package), folder) for package, folder in PACKAGED.items()]
    folders = [Path(spec.origin).parent / folder for spec, folder in packaged if spec and spec.origin]
    return [str(folder) for folder in [*(Path(name).expanduser() for name in USUAL), *folders] if folder.is_dir()]


def find_fonts(folders: Iterable[str], characters: Sequence[str]) -> list[Font]:
    """Every legible .ttf and .otf below `folders`, by file name, each with those of `characters` that it draws.

    A font that draws small letters as capitals counts as drawing capitals only.
    """
    files = {p.name: p for folder in sorted(folders) for p in sorted(Path(folder).rglob("*.[to]tf"))}
    references = [shapes for name in REFERENCES if name in files and (shapes := _shapes(str(files[name]))) is not None]
    check = partial(_checked, characters=characters, references=references)
    with multiprocessing.get_context("fork").Pool() as pool:
        found = pool.map(check, [str(path) for _, path in sorted(files.items())])
    return [font for font in found if font is not None]


def _checked(path: str, characters: Sequence[str], references: list[NDArray[np.float32]]) -> Font | None:
    shapes = _shapes(path)
    if shapes is None or (Path(path).name not in REFERENCES and _legible(shapes, references) < LEGIBLE):
        return None
    drawn = _drawn(path, characters)
    return Font(path, drawn) if drawn.issuperset(ascii_uppercase) else None


def _drawn(path: str, characters: Sequence[str]) -> frozenset[str]:
    glyphs = {c: _glyph(path, c) for c in [*characters, _MISSING]}
    drawn = {c for c in characters if glyphs[c] and glyphs[c] != glyphs[_MISSING]}
    if sum(glyphs.get(small) == glyphs.get(small.upper()) for small in ascii_lowercase) > 5:
        drawn = {c for c in drawn if c == c.upper()}
    return frozenset(drawn)


def _glyph(path: str, character: str) -> bytes:
    """The pixels of a character, empty if there are none."""
    try:
        mask = loaded(path).getmask(character)
    except (OSError, ValueError):
        return b""
    return bytes(mask) if mask.getbbox() else b""


def _shapes(path: str) -> NDArray[np.float32] | None:
    """(36, 256): capitals and digits, each stretched to 16 x 16 and of unit length; None if one is missing."""
    shapes = []
    for character in _CHECKED:
        try:
            mask = loaded(path).getmask(character)
        except (OSError, ValueError):
            return None
        box = mask.getbbox()
        if not box:
            return None
        picture = Image.frombytes("L", mask.size, bytes(mask)).crop(box).resize((16, 16), Image.Resampling.BOX)
        shape = np.asarray(picture, np.float32).ravel()
        shape -= shape.mean()
        shapes.append(shape / max(float(np.linalg.norm(shape)), 1e-6))
    return np.stack(shapes)


def _legible(shapes: NDArray[np.float32], references: list[NDArray[np.float32]]) -> float:
    """The share of characters whose nearest reference shape is the same character's. 1 without references."""
    if not references:
        return 1.0
    likeness = np.max([shapes @ reference.T for reference in references], 0)
    return float((likeness.argmax(1) == np.arange(len(_CHECKED))).mean())
