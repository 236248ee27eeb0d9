"""The usable word images of labelled sets, for training or evaluation."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cache.errors import DptrError
from cache.report import counts
from models.charset import Charset
from sources.cleaning import clean, clean_unicode
from sources.labelled import Labelled
from sources.missing import UNLABELLED, NoText


@dataclass(frozen=True)
class Crops:
    """Usable word images: crop n is picture `numbers[n]` of `sets[of[n]]`, and shows the word `labels[n]`."""

    sets: list[Labelled]
    of: NDArray[np.int32]
    numbers: NDArray[np.int64]
    labels: list[str]
    dropped: Counter[str]  # unusable labels, by reason
    folded: int = 0  # labels of which characters were removed or replaced, to make them ASCII

    def __len__(self) -> int:
        return len(self.labels)

    def picture(self, n: int) -> bytes:
        """The encoded picture of crop n, empty if there is none."""
        return self.sets[self.of[n]].picture(int(self.numbers[n]))

    def drawing(self, n: int) -> Callable[..., tuple[NDArray[np.uint8], str]] | None:
        """Draws crop n from a source of chance and a size, if its set is one that is drawn (see `Labelled.draw`)."""
        draw = self.sets[self.of[n]].draw
        return partial(draw, int(self.numbers[n])) if draw else None

    def where(self, chosen: NDArray[np.int64]) -> "Crops":
        """Only the crops with the numbers `chosen`."""
        labels = [self.labels[n] for n in chosen]
        return Crops(self.sets, self.of[chosen], self.numbers[chosen], labels, self.dropped, self.folded)

    def evenly(self, count: int | None) -> "Crops":
        """`count` of the crops, evenly spaced; all of them if there are no more or `count` is None."""
        if count is None or count >= len(self):
            return self
        return self.where(np.linspace(0, len(self) - 1, count).astype(np.int64))


def without_labels(sets: Sequence[Labelled]) -> Crops:
    """All pictures of these sets, each with an empty label."""
    of = np.repeat(np.arange(len(sets), dtype=np.int32), [len(one) for one in sets])
    numbers = np.concatenate([np.arange(len(one)) for one in sets])
    return Crops(list(sets), of, numbers, [""] * len(of), _missing(sets))


def _missing(sets: Sequence[Labelled]) -> Counter[str]:
    return +Counter({"that the LMDB says it has, and has not": sum(one.missing for one in sets)})


def usable(
    sets: Sequence[Labelled], charset: Charset, max_length: int, strict: bool = True, blank: bool = False
) -> Crops:
    """The crops whose labels a decoder can write, as it would write them; the others are counted by reason.

    Whitespace is removed; if the charset has a space, single ones stay between words. With an ASCII charset, letters
    are folded to ASCII (NFKD), as is usual in the field, and the labels that this changes are counted; with any other
    they are kept. With `strict` off, labels with characters outside the charset are kept, because an evaluation counts
    them as errors. With `blank`, empty labels are used, but not those that are missing or become empty. Raises
    DptrError if no crop is usable.
    """
    of: list[int] = []
    numbers: list[int] = []
    labels: list[str] = []
    dropped, folded = _missing(sets), 0
    folding, spaces = clean if charset.characters.isascii() else clean_unicode, " " in charset.characters
    for which, one in enumerate(sets):
        for number, text in enumerate(one.labels):
            label = folding(text, spaces)
            label = charset.fold(label) if strict else label
            if isinstance(text, NoText):
                dropped[text.why] += 1
            elif not label and (text.strip() or not blank):
                dropped["without any ASCII character" if text.strip() else UNLABELLED] += 1
            elif len(label) > max_length:
                dropped[f"longer than {max_length} characters"] += 1
            elif strict and not charset.holds(label):
                dropped["with characters outside the charset"] += 1
            else:
                of.append(which)
                numbers.append(number)
                labels.append(label)
                folded += folding is clean and not text.isascii() and clean(text) != clean_unicode(text)
    if not labels:
        raise DptrError(f"no usable word image in {', '.join(s.name for s in sets)}: {counts(dropped)}.")
    return Crops(list(sets), np.array(of, np.int32), np.array(numbers, np.int64), labels, dropped, folded)
