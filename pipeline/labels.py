"""From raw text to labels: cleaned as the released DPTR code does, and every loss counted by reason."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_LENGTH = 25  # characters, of the released decoder


@dataclass
class Labels:
    """Unique labels in the order of their first appearance, and what became of the rest.

    `read` lines came in; `counts` maps each label to its occurrences; `dropped` counts lines lost by reason; `altered`
    counts lines kept with fewer or other characters than they had.
    """

    counts: dict[str, int] = field(default_factory=dict)
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    altered: int = 0

    def report(self) -> str:
        """One line for a person."""
        losses = [f"{n:,} {reason}" for reason, n in self.dropped.items()]
        losses += [f"{self.altered:,} altered by folding to ASCII"] * bool(self.altered)
        return f"{self.read:,} read, {len(self.counts):,} different labels" + "".join(f"; {x}" for x in losses)


def clean(text: str) -> str:
    """NFKD, ASCII only, all whitespace removed; may come out empty.

    >>> clean("Caf\u00e9 ole")
    'Cafeole'
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return "".join(text.split())


def collect(texts: Iterable[str], max_length: int = MAX_LENGTH) -> Labels:
    """Clean and count `texts`; those empty after cleaning or longer than `max_length` characters are dropped."""
    from tqdm import tqdm  # not above: the command line reads MAX_LENGTH before anything is loaded

    labels = Labels()
    for text in tqdm(texts, "read", unit="word", delay=2, leave=False):
        labels.read += 1
        label = clean(text)
        if not label:
            labels.dropped["empty" if not text.strip() else "without any ASCII character"] += 1
        elif len(label) > max_length:
            labels.dropped[f"longer than {max_length} characters"] += 1
        else:
            labels.counts[label] = labels.counts.get(label, 0) + 1
            labels.altered += label != "".join(text.split())
    return labels
