"""How well text was read, as the field measures it: word accuracy, character error rate, 1-NED."""

import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rapidfuzz.distance import Levenshtein


@dataclass(frozen=True)
class Score:
    """Figures over a list of words, as fractions.

    `word_accuracy`: exactly equal, over all characters (the field's 94). `ignoring_case`: equal after case folding,
    which is fair to a CLIP that lower-cases its text. `accuracy_36`: letters and digits only, ignoring case, which is
    what most papers report. `accuracy_62`: letters and digits only, case-sensitive. Words without any letter or digit
    count in the first two only. `character_error`: edit distance over the number of true characters. `ned`: 1-NED, the
    mean of 1 - edit distance / longer length. `ned_36`: the same for letters and digits, ignoring case.
    """

    words: int
    word_accuracy: float
    ignoring_case: float
    accuracy_36: float
    accuracy_62: float
    character_error: float
    ned: float
    ned_36: float

    def __str__(self) -> str:
        return (
            f"word accuracy {self.word_accuracy:.1%} ({self.ignoring_case:.1%} ignoring case), "
            f"character error {self.character_error:.1%}, 1-NED {self.ned:.3f}"
        )

    def figures(self) -> dict[str, float]:
        """All but the number of words, by name."""
        return {name: value for name, value in asdict(self).items() if name != "words"}


def score(truths: Sequence[str], readings: Sequence[str]) -> Score:
    """Compare readings with truths, one to one. Raises ValueError for no words at all."""
    if not truths:
        raise ValueError("no words to score")
    pairs = list(zip(truths, readings, strict=True))
    bare = [(a, alphanumeric(r)) for t, r in pairs if (a := alphanumeric(t))]
    folded = [(t.casefold(), r.casefold()) for t, r in bare]
    n = len(pairs)
    return Score(
        words=n,
        word_accuracy=_equal(pairs),
        ignoring_case=_equal([(t.casefold(), r.casefold()) for t, r in pairs]),
        accuracy_36=_equal(folded),
        accuracy_62=_equal(bare),
        character_error=sum(Levenshtein.distance(t, r) for t, r in pairs) / max(1, sum(map(len, truths))),
        ned=_ned(pairs),
        ned_36=_ned(folded),
    )


def alphanumeric(text: str) -> str:
    """Letters and digits of any script, with the marks that belong to them: for ASCII the field's 62 characters.

    >>> alphanumeric("$4.99 Café")
    '499Café'
    """
    return "".join(c for c in text if c.isalnum() or unicodedata.category(c)[0] == "M")


def _equal(pairs: Sequence[tuple[str, str]]) -> float:
    return sum(t == r for t, r in pairs) / max(1, len(pairs))


def _ned(pairs: Sequence[tuple[str, str]]) -> float:
    return sum(Levenshtein.normalized_similarity(t, r) for t, r in pairs) / max(1, len(pairs))
