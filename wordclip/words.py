"""Which words to draw: common ones as signs show them, every BPE token in turn, numbers and codes."""

import random
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from itertools import accumulate, zip_longest
from pathlib import Path
from string import ascii_uppercase, digits

from pipeline.tokenizer import Tokenizer
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

    def __init__(
        self, lists: Sequence[Iterable[tuple[str, float]]], tokens: Tokenizer, characters: Set[str] = frozenset()
    ) -> None:
        """Draws from `lists` equally often; `tokens` is the encoder's tokenizer; words keep to `characters`, if any."""
        self._characters = characters
        self._lists = []
        with_token: dict[int, list[str]] = defaultdict(list)
        pieces: dict[str, int] = {}
        for entries in lists:
            kept = [(word, weight) for word, weight in entries if not held_out(word)]
            if kept:
                self._lists.append(([w for w, _ in kept], list(accumulate(weight for _, weight in kept))))
            for word, _ in kept:
                if word not in pieces:
                    ids = tokens.ids(word)[1:-1]
                    pieces[word] = len(ids)
                    for token in set(ids):
                        with_token[token].append(word)
        self._with_token = [sorted(words, key=pieces.__getitem__)[:20] for words in with_token.values()]

    def draw(self, rng: random.Random) -> str:
        """A word as a sign might show it, 1 to MAX_LENGTH characters."""
        while True:
            word = self._draw(rng)
            if not held_out(word) and (not self._characters or set(word) <= self._characters):
                return word

    def _draw(self, rng: random.Random) -> str:
        kind = rng.random()
        if kind < 0.50:
            words, weights = rng.choice(self._lists)
            word = cased(words[min(bisect(weights, rng.random() * weights[-1]), len(words) - 1)], rng, UPPER, TITLE)
        elif kind < 0.85:  # every token equally often, in its shortest words first; capitals have tokens of their own
            words = rng.choice(self._with_token)
            word = cased(words[min(int(rng.expovariate(0.5)), len(words) - 1)], rng, 0.15, 0.20)
        else:
            word = _number(rng)
        if rng.random() < 0.08:
            word = _punctuated(word, rng)
        return word[:MAX_LENGTH]


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


def _number(rng: random.Random) -> str:
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


def _punctuated(word: str, rng: random.Random) -> str:
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(["(%s)", '"%s"', "'%s'", "[%s]", "#%s", "@%s", "&%s"]).replace("%s", word)
    if kind == 1:
        return word + rng.choice(["'s", "'S", ".com", ".org", "-in", "/7"])
    if kind == 2:
        at = rng.randrange(len(word)) if len(word) > 1 else 0
        return word[:at] + rng.choice("-.&'/_+") + word[at:]
    return word + rng.choice(SPECIAL if kind == 3 else ",.!:?-")
