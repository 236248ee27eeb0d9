"""The prompt around a label, its token ids, and the tokens that all prompts begin with."""

import string
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cache.errors import DptrError, WrongUse

if TYPE_CHECKING:  # the command line needs PROMPT before anything heavy is loaded
    from pipeline.tokenizer import Tokenizer

PROMPT = "a photo of a '{label}'"  # of the released DPTR code

# Every way to begin a label that the tokenizer's splitting rules can tell apart: letters, digits, each kind of
# punctuation, a letter beyond ASCII, and the English endings ('s, 't, 're, ...) that merge with an opening quote.
_BEGINNINGS = [*string.ascii_letters, *string.digits, *string.punctuation, "é", "汉", "re", "ve", "ll", "一"]


class Prompt:
    """A template with the placeholder `{label}`, and the tokenizer that turns it into ids."""

    def __init__(self, template: str, tokens: "Tokenizer", shares: bool = True) -> None:
        """`prefix` holds the tokens that all prompts begin with; without `shares` no state can be shared: it is empty.

        Raises WrongUse for a template that cannot work.
        """
        if template.count("{label}") != 1:
            raise WrongUse(f"the prompt {template!r} must contain {{label}} exactly once.")
        self.template = template
        self.tokens = tokens
        prefix = _common_prefix([self.ids(b) for b in _BEGINNINGS])
        if len(prefix) + 2 > tokens.context:
            raise WrongUse(f"the prompt {template!r} leaves no room for a label in {tokens.context} positions.")
        self.prefix = prefix if shares else []

    def ids(self, label: str) -> list[int]:
        """Token ids of the prompt from start to end token, of any length."""
        return self.tokens.ids(self.template.replace("{label}", label))

    def check(self, label: str, ids: Sequence[int]) -> None:
        """DptrError if this prompt does not begin like all others: its memory could not share their prefix."""
        if list(ids[: len(self.prefix)]) != self.prefix:
            raise DptrError(
                f"the label '{label}' changes how the prompt before it is tokenised, so its memory cannot be stored "
                "without it: use --layout full, or a prompt with a space before {label}."
            )


def _common_prefix(sequences: list[list[int]]) -> list[int]:
    shortest, *_ = sorted(sequences, key=len)
    for n, column in enumerate(zip(*sequences, strict=False)):
        if len(set(column)) > 1:
            return shortest[:n]
    return shortest[:-1]
