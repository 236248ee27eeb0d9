"""Words as a set of word images that are drawn when they are asked for."""

import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import ascii_uppercase

from sources.cleaning import clean, clean_unicode
from sources.drawn.fonts import Font
from sources.drawn.hard import HardWords
from sources.drawn.render import Picture, render
from sources.drawn.words import TITLE, UPPER, cased
from sources.labelled import Labelled
from sources.missing import NoText

NO_FONT = "with characters that no font draws"


@dataclass(frozen=True)
class Writing:
    """What a decoder can write: its characters, how many of them, and the text that it writes for one in a picture."""

    characters: str
    max_length: int
    fold: Callable[[str], str] = str

    @cached_property
    def shown(self) -> frozenset[str]:
        """The characters that a picture may show: all that the decoder writes as one of its own."""
        cases = {case for c in self.characters for case in (c, c.upper(), c.lower())}
        return frozenset(c for c in cases if len(c) == 1 and self.fold(c) in self.characters)

    @property
    def drawn(self) -> list[str]:
        """The characters to look for in fonts: those, and the capitals that `find_fonts` asks every font for."""
        return sorted((self.shown | set(ascii_uppercase)) - {" "})

    def cleaned(self, text: str) -> str:
        """A label as fine-tuning cleans those of pictures; empty if the decoder cannot write it."""
        cleaning = clean if self.characters.isascii() else clean_unicode
        label = self.fold(cleaning(text, " " in self.characters))
        return label if len(label) <= self.max_length and set(label) <= set(self.characters) else ""


@dataclass(frozen=True)
class Scenery:
    """What word images are drawn from: fonts, at least one, and photographs (H, W, 3) to put behind, or none."""

    fonts: Sequence[Font]
    photographs: Sequence[Picture]

    def draws(self, text: str) -> bool:
        """Whether any font has all characters of `text`, spaces aside."""
        return any(font.draws(text) for font in self.fonts)


class _Artist:
    def __init__(self, labels: list[str], listed: int, hard: HardWords, writing: Writing, scenery: Scenery) -> None:
        self.labels, self.listed, self.hard, self.writing, self.scenery = labels, listed, hard, writing, scenery

    def draw(self, n: int, rng: random.Random, size: tuple[int, int]) -> tuple[Picture, str]:
        """A picture for labels[n], and what the decoder is to write for it."""
        word = self.labels[n]
        text = cased(word, rng, UPPER, TITLE) if n < self.listed else self.hard.draw(len(word), rng)
        if not self.possible(text):
            text = word
        drawn = render(text, self.scenery.fonts, self.scenery.photographs, rng, size)
        return drawn.picture, self.writing.fold(text)

    def possible(self, text: str) -> bool:
        """Whether a picture may show the text, and some font draws it."""
        fits = len(text) <= self.writing.max_length and self.writing.shown.issuperset(text)
        return fits and self.scenery.draws(text)


def drawn_set(
    name: str, words: Iterable[str], writing: Writing, scenery: Scenery, hard: float = 0.0, seed: int = 0
) -> Labelled:
    """Words, each of them once, as word images that look otherwise whenever they are drawn.

    A listed word is shown as it is, in capitals, or with a capital at its start. A share `hard` (below 1) of the set is
    hard words: their lengths stay, so that batches of similar lengths can be made, and their letters are others at each
    drawing. Words that no font draws become NoText, and those that cannot be written stay as they are, for
    `train.data.crops.usable` to count. There is no encoded picture: use `draw`.
    """
    spaced = [Font(font.path, font.characters | {" "}) for font in scenery.fonts]  # nothing to draw, nothing to lack
    scenery = Scenery(spaced, scenery.photographs)
    labels, usable = list[str](), list[str]()
    for word in words:
        label = writing.cleaned(word)
        if label and scenery.draws(label):
            usable.append(label)
        else:
            labels.append(NoText(NO_FONT) if label else word)
    usable = list(dict.fromkeys(usable))
    labels = usable + labels
    artist = _Artist(labels, len(labels), HardWords(usable, writing.shown, writing.max_length), writing, scenery)
    rng = random.Random(f"hard words {seed}")
    for _ in range(round(len(usable) * hard / (1 - hard))):
        text = artist.hard.draw(artist.hard.length(rng), rng)
        labels.append(writing.fold(text) if artist.possible(text) else rng.choice(usable))
    return Labelled(name, labels, lambda _: b"", draw=artist.draw, drawn_from=_hash(labels, scenery))


def _hash(labels: list[str], scenery: Scenery) -> str:
    told = hashlib.blake2b("\n".join(labels).encode(), digest_size=8)
    for font in scenery.fonts:
        told.update(f"{Path(font.path).name} {''.join(sorted(font.characters))}".encode())
    for photograph in scenery.photographs:
        told.update(photograph.tobytes())
    return told.hexdigest()
