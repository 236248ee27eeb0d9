"""How a label is cleaned: as the released DPTR code does, or kept as it is but for spaces."""

import hashlib
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


def hash_share(label: str) -> float:
    """Where a word's hash falls between 0 and 1. A share s of words is held out by keeping those below s.

    Upper and lower case fall on the same place: most CLIPs give them the same memory, and both spell the same word.
    """
    digest = hashlib.blake2b(label.casefold().encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
