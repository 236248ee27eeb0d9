"""How well text was read: word accuracy, character error rate, 1-NED."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """Figures over a list of words, as shares of one.

    `word_accuracy` exactly equal; `ignoring_case` equal after folding case, which is the fair figure for a CLIP that
    lower-cases its text; `character_error` edit distance over the number of true characters; `ned` 1-NED, the mean of
    1 - edit distance / longer length.
    """

    words: int
    word_accuracy: float
    ignoring_case: float
    character_error: float
    ned: float

    def __str__(self) -> str:
        return (
            f"{self.word_accuracy:.1%} of words right ({self.ignoring_case:.1%} ignoring case), "
            f"character error {self.character_error:.1%}, 1-NED {self.ned:.3f}"
        )


def score(truths: Sequence[str], readings: Sequence[str]) -> Score:
    """Compare readings with truths, one to one. Raises ValueError for no words at all."""
    if not truths:
        raise ValueError("no words to score")
    pairs = list(zip(truths, readings, strict=True))
    distances = [edit_distance(t, r) for t, r in pairs]
    n = len(pairs)
    return Score(
        words=n,
        word_accuracy=sum(t == r for t, r in pairs) / n,
        ignoring_case=sum(t.casefold() == r.casefold() for t, r in pairs) / n,
        character_error=sum(distances) / max(1, sum(map(len, truths))),
        ned=sum(1 - d / max(len(t), len(r), 1) for d, (t, r) in zip(distances, pairs, strict=True)) / n,
    )


def edit_distance(a: str, b: str) -> int:
    """Levenshtein's: the fewest insertions, deletions and substitutions that make `a` into `b`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
