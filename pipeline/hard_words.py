"""Hard words among the labels: `dptr embed-text SOURCE... --corpus NAME --hard-words 0.3`.

A decoder that has read listed words alone takes a price for a word with odd letters. What it has never seen in text,
punctuation above all, it does not read in pictures.
"""

import random
from string import ascii_letters, digits, punctuation

from pipeline.labels import Labels
from sources.drawn.hard import HardWords

MODELS = 100_000  # labels that hard words are made from


def add_hard_words(labels: Labels, share: float, max_length: int, keep_spaces: bool) -> None:
    """Add texts that no list has (see `HardWords`) until about a `share` (below 1) of the labels are such.

    They have at most `max_length` of the characters of the labels and of ASCII, with spaces between them if these are
    kept. They follow from the labels, so the same sources have the same hard words.
    """
    count = len(labels)
    every = -(-count // MODELS)
    models = [label for (label,) in labels.database.execute("SELECT label FROM labels WHERE number % ? = 0", (every,))]
    characters = set(ascii_letters + digits + punctuation).union(*models) - {" "}
    hard = HardWords(models, frozenset(characters | {" "} if keep_spaces else characters), max_length)
    rng = random.Random("hard words")
    labels.add(hard.draw(hard.length(rng), rng) for _ in range(round(count * share / (1 - share))))
    labels.made_up = len(labels) - count
