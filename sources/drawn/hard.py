"""Hard words: texts whose letters do not follow from each other as those of a list of words do.

Readers fill in the words that they have learnt. Union14M (Jiang et al., ICCV 2023, arXiv 2307.08723) names texts
without context, incomplete ones and several words in a row among what they still misread.
"""

import random
from collections import defaultdict
from collections.abc import Sequence

from cache.errors import WrongUse
from sources.drawn.words import TITLE, UPPER, cased, misspelt, number, punctuated

TRIES = 20


def check_share(share: float) -> None:
    """WrongUse if `--hard-words` is not a share that leaves room for listed words."""
    if not 0 <= share < 1:
        raise WrongUse(f"--hard-words must be from 0 to below 1, not {share:g}.")


class HardWords:
    """Makes hard words, of a length that is asked for, from listed ones and from nothing."""

    def __init__(self, words: Sequence[str], characters: frozenset[str], max_length: int) -> None:
        """Hard words have 1 to `max_length` of `characters`, spaces in them if that is one."""
        self._words, self._characters, self._max_length = words, characters, max_length
        self._of_length: dict[int, list[str]] = defaultdict(list)
        for word in words:
            self._of_length[len(word)].append(word)
        every = sorted(characters - {" "})
        kinds = [str.isdigit, str.islower, str.isupper, str.isalpha, lambda _: True, lambda _: True]
        self._alphabets = [chosen for kind in kinds if (chosen := [c for c in every if kind(c)])]
        self._glue = ["", "", " "] if " " in characters else [""]

    def length(self, rng: random.Random) -> int:
        """How long a hard word is: half of them as listed words are, others as two of them, or any length."""
        kind = rng.random()
        if kind < 0.5:
            length = len(rng.choice(self._words))
        elif kind < 0.75:
            length = len(rng.choice(self._words)) + len(rng.choice(self._words))
        else:
            length = 1 + int(rng.expovariate(0.2))
        return min(length, self._max_length)

    def draw(self, length: int, rng: random.Random) -> str:
        """A hard word of about `length` characters: a few more or fewer, but never more than `max_length`."""
        for _ in range(TRIES):
            word = self._draw(length, rng)[: self._max_length].strip()
            if word and self._characters.issuperset(word):
                return word
        return self._spelled(length, rng)

    def _draw(self, length: int, rng: random.Random) -> str:
        kind = rng.random()
        alike = self._of_length.get(length)
        if kind < 0.30:
            return self._spelled(length, rng)
        if kind < 0.40:
            return number(rng)[:length]
        if alike and kind < 0.60:  # letters lost, doubled, swapped, replaced
            word = cased(misspelt(rng.choice(alike), rng), rng, UPPER, TITLE)
        elif alike and kind < 0.75:
            return "".join(c.upper() if rng.random() < 0.5 else c.lower() for c in rng.choice(alike))
        else:
            word = cased(self._joined(length, rng), rng, UPPER, TITLE)
        return punctuated(word, rng) if rng.random() < 0.15 else word

    def _spelled(self, length: int, rng: random.Random) -> str:
        """Characters in no order that a language would give them."""
        return "".join(rng.choices(rng.choice(self._alphabets), k=length))

    def _joined(self, length: int, rng: random.Random) -> str:
        """Several words as one, the last of them cut off."""
        title = rng.random() < 0.4
        words, glue = "", rng.choice(self._glue)
        while len(words) < length:
            word = rng.choice(self._words)
            words += (glue if words else "") + (word[:1].upper() + word[1:] if title else word)
        return words[:length]
