"""What stands for a word or a picture that a source names and does not have: it is empty, and says why.

Whoever reads it sees an empty word or file, which everything here drops; whoever counts by reason asks for `why`.
"""

from typing import Self

UNLABELLED = "without a label"


class _Missing:
    why: str

    def __new__(cls, why: str) -> Self:
        one = super().__new__(cls)
        one.why = why
        return one


class NoText(_Missing, str):
    """An empty word. `why` continues "3 words ...", as in "3 that are not UTF-8"."""


class NoPicture(_Missing, bytes):
    """An empty picture. `why` is a sentence about it, as in "it is not a file"."""


def whole(text: str) -> str:
    """The text, or NoText if it has halves of surrogate pairs, which JSON can hold and no file of text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return NoText("with half a character (a lone surrogate)")
    return text
