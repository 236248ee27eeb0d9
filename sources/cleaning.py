"""How a label is cleaned: as the released DPTR code does, or kept as it is but for spaces."""

import unicodedata

MAX_LENGTH = 25  # characters, of the released decoder


def clean(text: str) -> str:
    """NFKD, ASCII only, all whitespace removed; may come out empty.

    >>> clean("Caf\u00e9 ole")
    'Cafeole'
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return "".join(text.split())


def clean_unicode(text: str) -> str:
    """All whitespace removed, NFC: a letter and its accent are one character, and nothing is lost.

    >>> clean_unicode("Cafe\u0301 ole")
    'Caféole'
    """
    # spaces first: NFC sorts the accents of a letter, also those that a space kept apart
    return unicodedata.normalize("NFC", "".join(text.split()))
