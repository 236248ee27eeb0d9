"""The prompt around a label, its token ids, and the tokens that all prompts begin with."""

import string
from collections.abc import Sequence
from typing import Any

from cache.errors import DptrError, WrongUse

PROMPT = "a photo of a '{label}'"  # of the released DPTR code

# What may begin a label, as far as the tokenizer's splitting rules tell beginnings apart: letters, digits, each kind of
# punctuation, a letter beyond ASCII, and the English endings ('s, 't, 're, ...) that merge with an opening quote.
_BEGINNINGS = [*string.ascii_letters, *string.digits, *string.punctuation, "é", "汉", "re", "ve", "ll", "一"]


class Prompt:
    """A template with the place `{label}`, and open_clip's own byte-pair tokenizer."""

    def __init__(self, template: str, tokenizer: Any, context: int) -> None:
        """`context` is the encoder's number of positions. Raises WrongUse if the template cannot work."""
        if template.count("{label}") != 1:
            raise WrongUse(f"the prompt {template!r} must hold the place {{label}} exactly once.")
        self.template = template
        self.context = context
        self.tokenizer = tokenizer
        self.prefix = _common_prefix([self.ids(b) for b in _BEGINNINGS])
        if len(self.prefix) + 2 > context:
            raise WrongUse(f"the prompt {template!r} leaves no room for a label in {context} positions.")

    def ids(self, label: str) -> list[int]:
        """Token ids of the prompt from start to end token, of any length."""
        text = self.template.replace("{label}", label)
        return [self.tokenizer.sot_token_id, *self.tokenizer.encode(text), self.tokenizer.eot_token_id]

    def check(self, label: str, ids: Sequence[int]) -> None:
        """DptrError if this prompt does not begin as all others do, so that its memory cannot share their prefix."""
        if list(ids[: len(self.prefix)]) != self.prefix:
            raise DptrError(
                f"the label '{label}' changes how the prompt before it is tokenised, so its memory cannot be stored "
                "in the compact layout: use --layout full, or a prompt with a space before {label}."
            )


def _common_prefix(sequences: list[list[int]]) -> list[int]:
    shortest, *_ = sorted(sequences, key=len)
    for n, column in enumerate(zip(*sequences, strict=False)):
        if len(set(column)) > 1:
            return shortest[:n]
    return shortest[:-1]
