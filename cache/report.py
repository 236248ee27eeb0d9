"""How results are put for people: counts by reason."""

from collections.abc import Mapping


def counts(reasons: Mapping[str, int]) -> str:
    """Counts by reason in words.

    >>> counts({"longer than 25 characters": 1200, "empty": 2})
    '1,200 longer than 25 characters, 2 empty'
    """
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
