"""Which words to draw: common ones as signs show them, and spellings that no list has, numbers and codes among them."""

import random
import unicodedata
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from itertools import accumulate, zip_longest
from pathlib import Path
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits

from sources.cleaning import MAX_LENGTH, hash_share

HELD_OUT = 0.02  # share of words, by hash, that are never drawn for training
UPPER, TITLE = 0.45, 0.25  # shares of words on signs in all capitals, and with one at the start
SPECIAL = "!\"#$%&'()*+,-./:;<=>?@[]_"


def held_out(word: str) -> bool:
    """Whether a word, in whatever case, is kept for measuring."""
    return hash_share(word) < HELD_OUT


def read_list(path: Path, characters: Set[str]) -> list[tuple[str, float]]:
    """(word, weight) of a list with one word per line, and log10 of its frequency after a tab if known.

    Words with any other than these `characters`, in either case, are left out. The weight is the square root of the
    frequency, so that rare words come up too; words without a frequency all weigh the same.
    """
    words = []
    for line in path.read_text("utf-8").splitlines():
        word, _, frequency = line.strip().partition("\t")
        if 0 < len(word) <= MAX_LENGTH and set(word + word.upper()) <= characters:
            words.append((word, 10 ** (float(frequency) / 2) if frequency else 1.0))
    return words


def kept_words(lists: Sequence[Sequence[tuple[str, float]]], count: int, seed: int) -> list[str]:
    """Up to `count` distinct held-out words, equally many from each list where possible, cased as on signs."""
    rng = random.Random(seed)
    kept = [rng.sample(words, len(words)) for entries in lists if (words := [w for w, _ in entries if held_out(w)])]
    mixed = [word for row in zip_longest(*kept) for word in row if word]
    return [cased(word, rng, UPPER, TITLE) for word in {word.casefold(): word for word in mixed}.values()][:count]


class WordSampler:
    """Draws words for training, never held-out ones."""

    def __init__(self, lists: Sequence[Iterable[tuple[str, float]]], characters: Set[str]) -> None:
        """Draws from `lists` equally often; every word consists of `characters`."""
        self._characters = characters
        self._lists = []
        for entries in lists:
            kept = [(word, weight) for word, weight in entries if not held_out(word)]
            if kept:
                self._lists.append(([w for w, _ in kept], list(accumulate(weight for _, weight in kept))))
        self._all = "".join(sorted(characters))
        self._alike = _alike(characters)

    def draw(self, rng: random.Random) -> str:
        """A word as a sign might show it, 1 to MAX_LENGTH characters."""
        while True:
            word = self._draw(rng)
            if word and not held_out(word) and set(word) <= self._characters:
                return word

    def _draw(self, rng: random.Random) -> str:
        kind = rng.random()
        if kind < 0.50:
            word = cased(self._listed(rng), rng, UPPER, TITLE)
        elif kind < 0.60:
            word = cased(misspelt(self._listed(rng), rng), rng, UPPER, TITLE)
        elif kind < 0.66:
            word = self._listed(rng) + rng.choice(["", "", "-", "&", "."]) + self._listed(rng)
            word = cased(word, rng, UPPER, TITLE)
        elif kind < 0.74:  # letters with marks: most words of most lists have none
            word = "".join(rng.choice(self._alike.get(c, c)) if rng.random() < 0.4 else c for c in self._listed(rng))
            word = cased(word, rng, UPPER, TITLE)
        elif kind < 0.88:
            word = self._spelled(rng)
        else:
            word = number(rng)
        if rng.random() < 0.08:
            word = punctuated(word, rng)
        return word[:MAX_LENGTH]

    def _listed(self, rng: random.Random) -> str:
        words, weights = rng.choice(self._lists)
        return words[min(bisect(weights, rng.random() * weights[-1]), len(words) - 1)]

    def _spelled(self, rng: random.Random) -> str:
        """Characters in no order that a language would give them: every one at every place."""
        alphabet = rng.choice([ascii_lowercase, ascii_uppercase, ascii_letters + digits, digits, self._all, self._all])
        return "".join(rng.choice(alphabet) for _ in range(min(1 + int(rng.expovariate(0.2)), MAX_LENGTH)))


def _alike(characters: Set[str]) -> dict[str, str]:
    """For each letter, those of `characters` that are the same letter with a mark."""
    found: dict[str, str] = defaultdict(str)
    for c in sorted(characters):
        plain = unicodedata.normalize("NFD", c)[0]
        if plain != c:
            found[plain] += c
    return found


def misspelt(word: str, rng: random.Random) -> str:
    """A letter lost, doubled, swapped with the next or replaced; two letters lost from a long word."""
    at = rng.randrange(len(word))
    kind = rng.randrange(4)
    if kind == 0:
        return word[:at] + word[at + 1 + (len(word) > 9) :]
    if kind == 1:
        return word[: at + 1] + word[at:]
    if kind == 2:
        return word[:at] + word[at + 1 : at + 2] + word[at : at + 1] + word[at + 2 :]
    return word[:at] + rng.choice(ascii_lowercase) + word[at + 1 :]


def cased(word: str, rng: random.Random, upper: float, title: float) -> str:
    """The word in all capitals or with a first capital (in these shares), rarely in mixed case, else as it is."""
    kind = rng.random()
    if kind < upper:
        shown = word.upper()
    elif kind < upper + title:
        shown = word[:1].upper() + word[1:]
    elif kind < upper + title + 0.02:
        shown = "".join(c.upper() if rng.random() < 0.5 else c for c in word)
    else:
        shown = word
    return shown


def number(rng: random.Random) -> str:
    """House numbers, years, prices, times, dates, telephone numbers, codes."""

    def some(alphabet: str, least: int, most: int) -> str:
        return "".join(rng.choice(alphabet) for _ in range(rng.randint(least, most)))

    kind = rng.randrange(10)
    if kind < 3:
        return some(digits, 1, 5)
    if kind == 3:
        return str(rng.randint(1800, 2030))
    if kind == 4:
        return rng.choice(["$", "£", "€", "", "¥"]) + some(digits, 1, 3) + rng.choice([".", ","]) + some(digits, 2, 2)
    if kind == 5:
        return f"{rng.randint(0, 23)}{rng.choice(':.')}{rng.randint(0, 59):02}" + rng.choice(["", "", "am", "pm", "h"])
    if kind == 6:
        return f"{rng.randint(1, 31)}{(s := rng.choice('/-.'))}{rng.randint(1, 12)}{s}{rng.randint(0, 30):02}"
    if kind == 7:
        return rng.choice(["-", ".", " "]).join(some(digits, 2, 4) for _ in range(rng.randint(2, 3))).replace(" ", "")
    if kind == 8:
        return some(digits, 1, 3) + rng.choice(["%", "th", "m", "km", "KM", "kg", "ml", "x", "+", "GB"])
    return some(ascii_uppercase + digits * 2, 2, 7)


def punctuated(word: str, rng: random.Random) -> str:
    """The word in brackets or quotes, with an ending, or with a sign in it or behind it."""
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(["(%s)", '"%s"', "'%s'", "[%s]", "#%s", "@%s", "&%s"]).replace("%s", word)
    if kind == 1:
        return word + rng.choice(["'s", "'S", ".com", ".org", "-in", "/7"])
    if kind == 2:
        at = rng.randrange(len(word)) if len(word) > 1 else 0
        return word[:at] + rng.choice("-.&'/_+") + word[at:]
    return word + rng.choice(SPECIAL if kind == 3 else ",.!:?-")
