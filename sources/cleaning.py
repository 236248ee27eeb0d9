"""How a label is cleaned: as in the released DPTR code, or only of its whitespace; and whether it is held out.

With `spaces`, words stay apart: whitespace between them becomes one space, and that around them is removed.
"""

import hashlib
import unicodedata

MAX_LENGTH = 25  # characters that the released decoder can read


def clean(text: str, spaces: bool = False) -> str:
    """NFKD, ASCII only, all whitespace removed; the result may be empty.

    >>> clean("Caf\u00e9 ole"), clean(" Caf\u00e9  ole", spaces=True)
    ('Cafeole', 'Cafe ole')
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return (" " if spaces else "").join(text.split())


def clean_unicode(text: str, spaces: bool = False) -> str:
    """All whitespace removed, then NFC: a letter and its accent are one character, and nothing else is lost.

    >>> clean_unicode("Cafe\u0301 ole")
    'Caféole'
    """
    # whitespace first: NFC reorders the accents of a letter, and would also reorder those that a space separated
    return unicodedata.normalize("NFC", (" " if spaces else "").join(text.split()))


def hash_share(label: str) -> float:
    """The word's hash as a number from 0 to 1. Words below s are held out, which is a share s of them.

    Case is ignored: most CLIPs give both cases one memory, and both spell the same word.
    """
    digest = hashlib.blake2b(label.casefold().encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
